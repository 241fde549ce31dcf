//! `GET /metrics`, for Prometheus.

use ipnet::IpNet;

use super::{App, Call};
use crate::auth::opaque::hash;
use crate::config::RequestSettings;
use crate::http::error::Error;
use crate::http::request::{ClientAddress, Request};
use crate::http::response::{Response, constant_fields};
use crate::metrics;

const FIELDS: &str = constant_fields!("text/plain; version=0.0.4", "no-store", "");

/// Header fields that proxies add. The address of a request that came through a proxy may be the proxy's own.
const PROXY_FIELDS: &str = "X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host X-Forwarded-Port \
    X-Forwarded-Server Forwarded X-Real-IP CF-Connecting-IP True-Client-IP Via";

/// Which clients may see the metrics.
#[derive(Clone, Debug)]
pub struct MetricsAccess {
    networks: Vec<IpNet>,
    token_hash: Option<[u8; 32]>,
}

impl MetricsAccess {
    /// Clients in the configured networks, unless they come through a proxy, and clients with the configured token.
    pub fn new(settings: &RequestSettings) -> MetricsAccess {
        let token = settings.metrics_token.as_ref();
        MetricsAccess {
            networks: settings.metrics_networks.clone(),
            token_hash: token.map(|token| hash(token.expose().trim())),
        }
    }

    fn allows(&self, request: &Request) -> bool {
        let bearer = request
            .headers
            .get("Authorization")
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| hash(token.trim()));
        // Hashes are compared, so that the time taken says nothing about the token.
        let by_token = self.token_hash.is_some() && bearer == self.token_hash;
        let names = |network: &IpNet| match request.client {
            ClientAddress::Ip(address) => network.contains(&address),
            // A client of a Unix socket is on this machine.
            ClientAddress::Local => network.addr().is_loopback(),
        };
        by_token || (!came_through_a_proxy(request) && self.networks.iter().any(names))
    }
}

fn came_through_a_proxy(request: &Request) -> bool {
    let mut fields = PROXY_FIELDS.split_whitespace();
    fields.any(|name| request.headers.raw(name).next().is_some())
}

/// `GET /metrics`
pub fn show(app: &App, call: &Call) -> Result<Response, Error> {
    if !app.metrics.allows(call.request) {
        return Err(Error::Forbidden(
            "metrics are for the addresses in METRICS_ALLOW, and for clients that send METRICS_TOKEN as a bearer token",
        ));
    }
    let text = metrics::render(app.store.pool_state())
        .map_err(|error| Error::Internal(error.to_string()))?;
    Ok(Response::new(200, FIELDS, text))
}
