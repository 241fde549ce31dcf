//! Finds the handler for a method and a path.
//!
//! Patterns are written `/api/[{user_id}/]tasks/{id}`: a segment in braces takes any value, and a part in square brackets may
//! be left out, so that the pattern stands for two paths. A literal segment wins over one in braces, from the left; which
//! method is asked for plays no part in that. `/api/v1/…` and `/api/…` are the same.

use std::sync::Arc;

use super::request::Method;
use super::target::Segments;

/// One line of the routing table.
pub struct Route<H> {
    method: Method,
    pattern: &'static str,
    handler: H,
}

impl<H> Route<H> {
    /// A route. GET answers HEAD too.
    pub const fn new(method: Method, pattern: &'static str, handler: H) -> Route<H> {
        Route {
            method,
            pattern,
            handler,
        }
    }
}

/// All routes, ready to be searched.
pub struct Router<H> {
    // The most literal first.
    resources: Vec<Resource<H>>,
}

struct Resource<H> {
    pattern: Arc<str>,
    segments: Vec<Segment>,
    methods: Vec<(Method, H)>,
    allow: String,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    // In this order literals sort, and so are tried, first.
    Literal(String),
    Parameter(String),
}

/// Where a request goes.
pub enum Found<'r, 't, H> {
    /// To this handler.
    Handler(&'r H, Path<'r, 't>),
    /// Nowhere: the path is known, the method is not. `allow` lists those that are.
    OtherMethods {
        /// The methods, as the `Allow` field lists them.
        allow: &'r str,
        /// The path's pattern.
        pattern: &'r Arc<str>,
    },
    /// Nowhere: the path is not known.
    Nothing,
}

/// A path that matched: its pattern and the values of its parameters.
pub struct Path<'r, 't> {
    /// The pattern, for logs and metrics.
    pub pattern: &'r Arc<str>,
    names: &'r [Segment],
    values: Segments<'t>,
}

impl Path<'_, '_> {
    /// The value of a parameter; `None` where the pattern has none of that name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.names
            .iter()
            .zip(&self.values)
            .find_map(|(segment, value)| {
                matches!(segment, Segment::Parameter(n) if n == name).then_some(value.as_ref())
            })
    }
}

impl<H: Clone> Router<H> {
    /// Makes a router of a table.
    pub fn new(routes: Vec<Route<H>>) -> Router<H> {
        let mut resources: Vec<Resource<H>> = Vec::new();
        for route in routes {
            for pattern in spellings(route.pattern) {
                let segments: Vec<Segment> = pattern
                    .split('/')
                    .filter(|segment| !segment.is_empty())
                    .map(Segment::parse)
                    .collect();
                match resources
                    .iter_mut()
                    .find(|resource| resource.segments == segments)
                {
                    Some(resource) => resource.methods.push((route.method, route.handler.clone())),
                    None => resources.push(Resource {
                        pattern: Arc::from(pattern),
                        segments,
                        methods: vec![(route.method, route.handler.clone())],
                        allow: String::new(),
                    }),
                }
            }
        }
        resources.sort_by(|a, b| a.segments.cmp(&b.segments));
        for resource in &mut resources {
            resource.allow = resource.allow();
        }
        Router { resources }
    }
}

impl<H> Router<H> {
    /// Finds where a request goes.
    pub fn find<'r, 't>(&'r self, method: Method, mut segments: Segments<'t>) -> Found<'r, 't, H> {
        if let [api, version, ..] = segments.as_slice()
            && api == "api"
            && version == "v1"
        {
            segments.remove(1);
        }
        let Some(resource) = self
            .resources
            .iter()
            .find(|resource| resource.matches(&segments))
        else {
            return Found::Nothing;
        };
        let wanted = if method == Method::Head {
            Method::Get
        } else {
            method
        };
        match resource
            .methods
            .iter()
            .find(|(offered, _)| *offered == wanted)
        {
            Some((_, handler)) => Found::Handler(
                handler,
                Path {
                    pattern: &resource.pattern,
                    names: &resource.segments,
                    values: segments,
                },
            ),
            None => Found::OtherMethods {
                allow: &resource.allow,
                pattern: &resource.pattern,
            },
        }
    }
}

impl<H> Resource<H> {
    fn matches(&self, segments: &Segments<'_>) -> bool {
        self.segments.len() == segments.len()
            && self
                .segments
                .iter()
                .zip(segments)
                .all(|(wanted, segment)| match wanted {
                    Segment::Literal(literal) => literal == segment,
                    Segment::Parameter(_) => !segment.is_empty(),
                })
    }

    fn allow(&self) -> String {
        let mut names = Vec::new();
        for (method, _) in &self.methods {
            names.push(method.as_str());
            if *method == Method::Get {
                names.push(Method::Head.as_str());
            }
        }
        names.push(Method::Options.as_str());
        names.join(", ")
    }
}

impl Segment {
    fn parse(text: &str) -> Segment {
        match text
            .strip_prefix('{')
            .and_then(|name| name.strip_suffix('}'))
        {
            Some(name) => Segment::Parameter(name.to_owned()),
            None => Segment::Literal(text.to_owned()),
        }
    }
}

/// The paths a pattern stands for: itself, or with and without the part in square brackets.
pub fn spellings(pattern: &str) -> Vec<String> {
    match pattern
        .split_once('[')
        .and_then(|(head, rest)| Some((head, rest.split_once(']')?)))
    {
        Some((head, (part, tail))) => vec![format!("{head}{tail}"), format!("{head}{part}{tail}")],
        None => vec![pattern.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::target;
    use Method::*;

    fn router() -> Router<&'static str> {
        Router::new(vec![
            Route::new(Get, "/", "root"),
            Route::new(Get, "/api/[{user_id}/]tasks", "list"),
            Route::new(Post, "/api/[{user_id}/]tasks", "create"),
            Route::new(Get, "/api/[{user_id}/]tasks/{id}", "show"),
            Route::new(Patch, "/api/[{user_id}/]tasks/{id}/complete", "complete"),
            Route::new(Get, "/api/[{user_id}/]tasks/stats", "stats"),
            Route::new(Post, "/api/auth/login", "login"),
        ])
    }

    fn find(method: Method, path: &str) -> String {
        let router = router();
        let (segments, _) = target::split(path).unwrap();
        match router.find(method, segments) {
            Found::Handler(handler, path) => {
                let user = path.parameter("user_id").unwrap_or("-");
                format!("{handler} {user} {}", path.parameter("id").unwrap_or("-"))
            }
            Found::OtherMethods { allow, .. } => format!("405 {allow}"),
            Found::Nothing => "404".to_owned(),
        }
    }

    #[test]
    fn every_route_has_both_forms() {
        for (method, path, found) in [
            (Get, "/", "root - -"),
            (Head, "/", "root - -"),
            (Get, "/api/tasks", "list - -"),
            (Get, "/api/tasks/", "list - -"),
            (Get, "/api/v1/tasks", "list - -"),
            (Get, "/api/u1/tasks", "list u1 -"),
            (Get, "/api/v1/u1/tasks/7", "show u1 7"),
            (Get, "/api/v1/v1/tasks", "list v1 -"),
            (Patch, "/api/a%2Fb/tasks/7/complete", "complete a/b 7"),
        ] {
            assert_eq!(find(method, path), found, "{path}");
        }
    }

    #[test]
    fn literals_win_from_the_left() {
        assert_eq!(find(Get, "/api/tasks/stats"), "stats - -");
        assert_eq!(find(Get, "/api/tasks/tasks"), "show - tasks");
        assert_eq!(find(Patch, "/api/tasks/tasks/complete"), "complete - tasks");
        assert_eq!(find(Get, "/api/auth/tasks"), "list auth -");
        assert_eq!(find(Post, "/api/auth/login"), "login - -");
    }

    #[test]
    fn other_methods_and_unknown_paths_are_told_apart() {
        assert_eq!(find(Delete, "/api/tasks"), "405 GET, HEAD, POST, OPTIONS");
        assert_eq!(find(Get, "/api/tasks/1/complete"), "405 PATCH, OPTIONS");
        for path in [
            "/api",
            "/tasks",
            "/api/tasks//",
            "/api//tasks",
            "/API/tasks",
            "/api/v1",
            "/api/v2/v1/tasks",
        ] {
            assert_eq!(find(Get, path), "404", "{path}");
        }
    }
}
