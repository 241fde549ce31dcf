//! A user with an account who has logged in.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::actors::Actor;
use super::http::Answer;

/// A valid password.
pub const PASSWORD: &str = "correct horse battery";

/// A session, as a client stores it.
#[derive(Clone)]
pub struct Login {
    address: SocketAddr,
    /// The answer of a login or a refresh.
    pub answer: Value,
}

impl Login {
    /// Makes an account with [`PASSWORD`].
    #[track_caller]
    pub fn register(address: SocketAddr, email: &str) -> Login {
        let body = json!({"email": email, "password": PASSWORD});
        let answer = Actor::anonymous(address).post("/api/auth/register", body);
        Login::of(address, &answer.expect(201))
    }

    /// Logs in with [`PASSWORD`].
    #[track_caller]
    pub fn again(address: SocketAddr, email: &str) -> Login {
        Login::of(address, &try_log_in(address, email, PASSWORD).expect(200))
    }

    /// Reads an answer with tokens.
    #[track_caller]
    pub fn of(address: SocketAddr, answer: &Answer) -> Login {
        let answer = answer.json();
        assert!(answer["access_token"].is_string(), "{answer}");
        Login { address, answer }
    }

    /// The user's id.
    pub fn id(&self) -> &str {
        self.answer["user"]["id"].as_str().unwrap()
    }

    pub fn access_token(&self) -> &str {
        self.answer["access_token"].as_str().unwrap()
    }

    pub fn refresh_token(&self) -> &str {
        self.answer["refresh_token"].as_str().unwrap()
    }

    /// A client with the access token.
    pub fn actor(&self) -> Actor {
        self.actor_at(self.address)
    }

    /// As [`Login::actor`], to another server.
    pub fn actor_at(&self, address: SocketAddr) -> Actor {
        Actor::with_token(address, self.access_token())
    }

    /// Makes an API token with every scope.
    #[track_caller]
    pub fn api_token(&self) -> String {
        let body = json!({"name": "t", "current_password": PASSWORD});
        let made = self
            .actor()
            .post("/api/auth/tokens", body)
            .expect(201)
            .json();
        made["token"].as_str().unwrap().to_owned()
    }

    /// Presents the refresh token.
    pub fn try_refresh(&self) -> Answer {
        self.try_refresh_at(self.address)
    }

    /// As [`Login::try_refresh`], at another server.
    pub fn try_refresh_at(&self, address: SocketAddr) -> Answer {
        let body = json!({"refresh_token": self.refresh_token()});
        Actor::anonymous(address).post("/api/auth/refresh", body)
    }

    /// Continues the session.
    #[track_caller]
    pub fn refresh(&self) -> Login {
        Login::of(self.address, &self.try_refresh().expect(200))
    }

    /// Whether the access token is accepted.
    pub fn is_in(&self) -> bool {
        self.is_in_at(self.address)
    }

    /// As [`Login::is_in`], at another server.
    pub fn is_in_at(&self, address: SocketAddr) -> bool {
        let answer = self.actor_at(address).get("/api/tasks");
        match answer.status {
            200 => true,
            401 => {
                assert_eq!(
                    answer.expect_error(401, "UNAUTHORIZED"),
                    "Token has been revoked"
                );
                false
            }
            other => panic!("{other}: {answer:?}"),
        }
    }
}

/// Sends a login.
pub fn try_log_in(address: SocketAddr, email: &str, password: &str) -> Answer {
    let body = json!({"email": email, "password": password});
    Actor::anonymous(address).post("/api/auth/login", body)
}
