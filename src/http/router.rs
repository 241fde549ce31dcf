//! Finds the handler for a method and a path.
//!
//! Patterns are written `/api/[{user_id}/]tasks/{id}`: a segment in braces matches any value, and a part in square brackets may
//! be left out, so that the pattern stands for two paths. A literal segment is preferred to one in braces, from the left, whatever
//! the method. `/api/v1/…` and `/api/…` are the same.

use std::borrow::Cow;
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

/// All routes.
pub struct Router<H> {
    // In the order of their patterns: `{` sorts after letters, so literals are tried first.
    resources: Vec<PathHandlers<H>>,
}

struct PathHandlers<H> {
    pattern: Arc<str>,
    segments: Vec<String>,
    methods: Vec<(Method, H)>,
}

/// A path that has a route: its pattern, its methods, and the values of its parameters.
pub struct Path<'r, 't, H> {
    resource: &'r PathHandlers<H>,
    values: Segments<'t>,
}

impl<'r, H> Path<'r, '_, H> {
    /// The pattern, for logs and metrics.
    pub fn pattern(&self) -> &'r Arc<str> {
        &self.resource.pattern
    }

    /// The handler for this method; `None` if the path does not take it.
    pub fn handler(&self, method: Method) -> Option<&'r H> {
        let wanted = match method {
            Method::Head => Method::Get,
            method => method,
        };
        let mut methods = self.resource.methods.iter();
        methods.find_map(|(method, handler)| (*method == wanted).then_some(handler))
    }

    /// The methods of the path, as the field `Allow` lists them.
    pub fn allow(&self) -> String {
        let mut names = Vec::new();
        for (method, _) in &self.resource.methods {
            names.push(method.as_str());
            if *method == Method::Get {
                names.push(Method::Head.as_str());
            }
        }
        names.push(Method::Options.as_str());
        names.join(", ")
    }

    /// The value of a parameter; `None` if the pattern has none of that name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut segments = self.resource.segments.iter().zip(&self.values);
        segments.find_map(|(segment, value)| {
            (parameter_name(segment) == Some(name)).then_some(value.as_ref())
        })
    }
}

impl<H: Clone> Router<H> {
    /// A router for a table.
    pub fn new(routes: Vec<Route<H>>) -> Router<H> {
        let mut resources: Vec<PathHandlers<H>> = Vec::new();
        for route in routes {
            for pattern in spellings(route.pattern) {
                let method = (route.method, route.handler.clone());
                let same = |resource: &&mut PathHandlers<H>| *resource.pattern == *pattern;
                match resources.iter_mut().find(same) {
                    Some(resource) => resource.methods.push(method),
                    None => resources.push(PathHandlers {
                        segments: segments(&pattern).map(str::to_owned).collect(),
                        pattern: Arc::from(pattern),
                        methods: vec![method],
                    }),
                }
            }
        }
        resources.sort_unstable_by(|a, b| a.segments.cmp(&b.segments));
        Router { resources }
    }

    /// Finds the routes of a path.
    pub fn find<'r, 't>(&'r self, mut values: Segments<'t>) -> Option<Path<'r, 't, H>> {
        if let [api, version, ..] = values.as_slice()
            && api == "api"
            && version == "v1"
        {
            values.remove(1);
        }
        let mut resources = self.resources.iter();
        let resource = resources.find(|resource| resource.matches(&values))?;
        Some(Path { resource, values })
    }
}

impl<H> PathHandlers<H> {
    fn matches(&self, values: &Segments<'_>) -> bool {
        let matches = |(segment, value): (&String, &Cow<'_, str>)| match parameter_name(segment) {
            Some(_) => !value.is_empty(),
            None => value == segment,
        };
        self.segments.len() == values.len() && self.segments.iter().zip(values).all(matches)
    }
}

/// The name in a segment in braces.
fn parameter_name(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

fn segments(pattern: &str) -> impl Iterator<Item = &str> {
    pattern.split('/').filter(|segment| !segment.is_empty())
}

/// The paths a pattern stands for: itself, or with and without the part in square brackets.
pub fn spellings(pattern: &str) -> Vec<String> {
    let Some((head, rest)) = pattern.split_once('[') else {
        return vec![pattern.to_owned()];
    };
    let (part, tail) = rest.split_once(']').unwrap_or((rest, ""));
    vec![format!("{head}{tail}"), format!("{head}{part}{tail}")]
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
        let Some(path) = router.find(segments) else {
            return "404".to_owned();
        };
        match path.handler(method) {
            Some(handler) => {
                let user = path.parameter("user_id").unwrap_or("-");
                format!("{handler} {user} {}", path.parameter("id").unwrap_or("-"))
            }
            None => format!("405 {}", path.allow()),
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
    fn literals_are_preferred_from_the_left() {
        assert_eq!(find(Get, "/api/tasks/stats"), "stats - -");
        assert_eq!(find(Get, "/api/tasks/tasks"), "show - tasks");
        assert_eq!(find(Patch, "/api/tasks/tasks/complete"), "complete - tasks");
        assert_eq!(find(Get, "/api/auth/tasks"), "list auth -");
        assert_eq!(find(Post, "/api/auth/login"), "login - -");
    }

    #[test]
    fn other_methods_and_unknown_paths_are_distinguished() {
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
