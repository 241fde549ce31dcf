//! `GET /metrics`, for Prometheus: to whoever may see it.

use ipnet::IpNet;

use super::{App, Call};
use crate::auth::opaque::hash;
use crate::http::error::Error;
use crate::http::request::{Client, Request};
use crate::http::response::Response;
use crate::metrics;

/// What a proxy adds. Whoever comes through one has its address, and not one of their own.
const PROXIES_SAY: [&str; 10] = [
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Server",
    "Forwarded",
    "X-Real-IP",
    "CF-Connecting-IP",
    "True-Client-IP",
    "Via",
];

/// Who may see the metrics.
#[derive(Clone, Debug, Default)]
pub struct MetricsAccess {
    networks: Vec<IpNet>,
    token_hash: Option<[u8; 32]>,
}

impl MetricsAccess {
    /// Those from these networks that come through no proxy, and those with this token.
    pub fn new(networks: Vec<IpNet>, token: Option<&str>) -> MetricsAccess {
        MetricsAccess {
            networks,
            token_hash: token.map(hash),
        }
    }

    fn allows(&self, request: &Request) -> bool {
        let bearer = request
            .headers
            .get("Authorization")
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| hash(token.trim()));
        // Hashes are compared, so that the time taken tells nothing of the token.
        let by_token = self.token_hash.is_some() && bearer == self.token_hash;
        by_token || (!came_through_a_proxy(request) && self.allows_address(request.client))
    }

    fn allows_address(&self, client: Client) -> bool {
        match client {
            Client::Address(address) => self
                .networks
                .iter()
                .any(|network| network.contains(&address)),
            // A Unix socket is on this machine.
            Client::Local => self
                .networks
                .iter()
                .any(|network| network.addr().is_loopback()),
        }
    }
}

fn came_through_a_proxy(request: &Request) -> bool {
    PROXIES_SAY
        .iter()
        .any(|name| request.headers.raw(name).next().is_some())
}

/// `GET /metrics`
pub fn show(app: &App, call: &Call) -> Result<Response, Error> {
    if !app.metrics.allows(call.request) {
        return Err(Error::Forbidden(
            "metrics are for the addresses in METRICS_ALLOW, and for whoever has METRICS_TOKEN as a bearer token",
        ));
    }
    let text = metrics::render(app.store.pool_state())
        .map_err(|error| Error::Internal(error.to_string()))?;
    Ok(Response::text(200, metrics::CONTENT_TYPE, text))
}
