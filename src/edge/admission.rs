//! Counts connections, in all and by network.

use std::collections::HashMap;

use crate::http::request::Network;
use crate::metrics;

/// The number of connections, in all and by network.
pub struct Admission {
    pub open: usize,
    most: usize,
    by_network: HashMap<Network, usize>,
    most_per_network: usize,
}

/// Why a connection is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The server has as many connections as it may have.
    Server,
    /// The client's network has as many connections as it may have.
    Address,
}

impl Full {
    /// The reason for the metrics, and the cause for the log.
    pub fn explain(self) -> (&'static str, &'static str) {
        match self {
            Full::Server => (
                "CONNECTIONS",
                "no more connections are allowed (MAX_CONNECTIONS)",
            ),
            Full::Address => (
                "CONNECTIONS_PER_IP",
                "no more connections of this address are allowed (MAX_CONNECTIONS_PER_IP)",
            ),
        }
    }
}

impl Admission {
    /// Limits, and no connection yet.
    pub fn new(most: usize, most_per_network: usize) -> Admission {
        Admission {
            open: 0,
            most,
            by_network: HashMap::new(),
            most_per_network,
        }
    }

    /// Counts a connection, also in the count of its network if one is given. The server's own check on itself is always
    /// admitted; there is one at a time.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit(&mut self, network: Option<Network>, own: bool) -> Result<(), Full> {
        let of_network = network.and_then(|network| self.by_network.get(&network));
        if of_network.is_some_and(|count| *count >= self.most_per_network) {
            return Err(Full::Address);
        }
        if self.open >= self.most && !own {
            return Err(Full::Server);
        }
        if let Some(network) = network {
            *self.by_network.entry(network).or_default() += 1;
        }
        self.open += 1;
        metrics::connection_opened();
        Ok(())
    }

    /// A connection has ended that was admitted with this network.
    pub fn leave(&mut self, network: Option<Network>) {
        self.open -= 1;
        metrics::connection_closed();
        if let Some(network) = network
            && let Some(count) = self.by_network.get_mut(&network)
        {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::ClientAddress;

    fn network(address: &str) -> Option<Network> {
        Some(ClientAddress::Ip(address.parse().unwrap()).network())
    }

    #[test]
    fn an_address_has_its_own_limit() {
        let mut admission = Admission::new(7, 2);
        for last in [1, 1, 2, 2] {
            let of = network(&format!("192.0.2.{last}"));
            admission.admit(of, false).unwrap();
        }
        let full = network("192.0.2.1");
        assert_eq!(admission.admit(full, false), Err(Full::Address));
        assert_eq!(admission.admit(None, false), Ok(()), "not counted");
        admission.leave(full);
        assert_eq!(admission.admit(full, false), Ok(()));
        // IPv6 networks are counted, not addresses.
        assert_eq!(admission.admit(network("2001:db8::1"), false), Ok(()));
        assert_eq!(admission.admit(network("2001:db8::2"), false), Ok(()));
        assert_eq!(
            admission.admit(network("2001:db8::3"), false),
            Err(Full::Address)
        );
        assert_eq!(admission.admit(None, false), Err(Full::Server));
        assert_eq!(admission.admit(None, true), Ok(()), "the self-check");
    }
}
