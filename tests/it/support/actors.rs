//! Clients of the server, with or without a token.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use todo_api::auth::token::Minter;
use todo_api::domain::user::UserId;

use super::app::SECRET;
use super::http::{self, Answer};

/// A client that sends requests, with or without a token.
#[derive(Clone)]
pub struct Actor {
    address: SocketAddr,
    authorization: Option<String>,
    /// The user of the token; empty without one.
    pub id: String,
}

impl Actor {
    /// A client without a token.
    pub fn anonymous(address: SocketAddr) -> Actor {
        Actor {
            address,
            authorization: None,
            id: String::new(),
        }
    }

    /// A user with a good token.
    pub fn user(address: SocketAddr, id: &str) -> Actor {
        let user = UserId::parse(id).unwrap();
        let token = Minter::new(SECRET)
            .mint(&user, None, Duration::from_secs(3600))
            .unwrap();
        Actor {
            address,
            authorization: Some(format!("Bearer {token}")),
            id: id.to_owned(),
        }
    }

    /// A client with this Authorization field.
    pub fn with_authorization(address: SocketAddr, value: &str) -> Actor {
        Actor {
            address,
            authorization: Some(value.to_owned()),
            id: String::new(),
        }
    }

    /// A client with this bearer token.
    pub fn with_token(address: SocketAddr, token: impl Display) -> Actor {
        Actor::with_authorization(address, &format!("Bearer {token}"))
    }

    /// The user's path form of a target: `/tasks` becomes `/api/<id>/tasks`.
    pub fn own(&self, rest: &str) -> String {
        let id: String = self.id.bytes().map(|byte| format!("%{byte:02x}")).collect();
        format!("/api/{id}{rest}")
    }

    pub fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], None)
    }

    pub fn delete(&self, target: &str) -> Answer {
        self.send("DELETE", target, &[], None)
    }

    pub fn post(&self, target: &str, body: Value) -> Answer {
        self.send_json("POST", target, body)
    }

    pub fn put(&self, target: &str, body: Value) -> Answer {
        self.send_json("PUT", target, body)
    }

    pub fn patch(&self, target: &str, body: Value) -> Answer {
        self.send_json("PATCH", target, body)
    }

    pub fn send_json(&self, method: &str, target: &str, body: Value) -> Answer {
        self.send(
            method,
            target,
            &[("Content-Type", "application/json")],
            Some(body.to_string().as_bytes()),
        )
    }

    pub fn send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        self.try_send(method, target, headers, body).unwrap()
    }

    pub fn try_send(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> std::io::Result<Answer> {
        let mut headers = headers.to_vec();
        if let Some(authorization) = &self.authorization {
            headers.push(("Authorization", authorization));
        }
        http::try_send(self.address, method, target, &headers, body)
    }

    /// Makes a task and returns it.
    #[track_caller]
    pub fn task(&self, title: &str) -> Value {
        self.post("/api/tasks", serde_json::json!({ "title": title }))
            .expect(201)
            .json()
    }
}
