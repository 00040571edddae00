//! `rdist token create`, `list` and `revoke`.

use std::io::Write as _;

use anyhow::Context as _;
use rdist::client::{Role, TokenStatus};
use rdist::transport::Token;
use serde_json::{Value, json};

use super::jobs::now_ms;
use super::session;
use crate::arguments::{self, Client, TokenCreate, TokenRevoke};
use crate::output;
use crate::units::show_seconds;

/// Columns for people.
const COLUMNS: [(&str, &str); 5] = [
    ("id", "ID"),
    ("role", "ROLE"),
    ("state", "STATE"),
    ("ends", "ENDS"),
    ("uses_left", "USES LEFT"),
];

/// Makes a token; standard output has nothing but the token, for scripts.
pub(super) fn create(options: &TokenCreate, json: bool) -> anyhow::Result<()> {
    let role = match options.role {
        arguments::Role::Worker => Role::Worker,
        arguments::Role::Client => Role::Client,
        arguments::Role::ReadOnly => Role::ReadOnly,
    };
    let ttl = options.ttl.as_secs();
    let (text, address) = session::run(&options.client, async |client| {
        let text = client.token_create(role, Some(ttl), options.uses).await?;
        Ok((text, client.status().await?.address))
    })?;
    let token: Token = text.parse().context("the head made a token that is none")?;
    let mut out = std::io::stdout();
    if json {
        let line = json!({
            "event": "token_created", "token": text, "id": show_id(token.id),
            "role": role.word(), "ttl_seconds": ttl, "uses": options.uses,
        });
        writeln!(out, "{line}")?;
        return Ok(());
    }
    writeln!(out, "{text}")?;
    let with = match role {
        Role::Worker => format!("rdist worker join {address} --token TOKEN"),
        Role::Client | Role::ReadOnly => format!("rdist status --head {address} --token TOKEN"),
    };
    eprintln!(
        "token {} of the role {role}, good for {}; use it with\n  {with}",
        show_id(token.id),
        show_seconds(ttl as f64)
    );
    Ok(())
}

/// Lists tokens.
pub(super) fn list(options: &Client, json: bool) -> anyhow::Result<()> {
    let tokens = session::run(options, async |client| Ok(client.token_list().await?))?;
    let now = now_ms() / 1_000;
    let rows: Vec<Value> = tokens.iter().map(|token| row(token, now)).collect();
    let none = "no token; make one with `rdist token create`";
    output::rows(&mut std::io::stdout(), json, &rows, &COLUMNS, none)?;
    Ok(())
}

/// Revokes a token.
pub(super) fn revoke(options: &TokenRevoke, json: bool) -> anyhow::Result<()> {
    let id = u64::from_str_radix(&options.id, 16).with_context(|| {
        format!("{:?} is no token's id; `rdist token list` shows them", options.id)
    })?;
    session::run(&options.client, async |client| Ok(client.token_revoke(id).await?))?;
    let id = show_id(id);
    if json {
        println!("{}", json!({"event": "token_revoked", "id": id}));
    } else {
        println!("token {id} revoked");
    }
    Ok(())
}

fn show_id(id: u64) -> String {
    format!("{id:016x}")
}

fn row(token: &TokenStatus, now: u64) -> Value {
    let state = match (token.revoked, token.expires_at, token.uses_left) {
        (true, ..) => "revoked",
        (_, Some(end), _) if end <= now => "expired",
        (_, _, Some(0)) => "used up",
        _ => "good",
    };
    let ends = token.expires_at.filter(|end| *end > now);
    json!({
        "id": show_id(token.id),
        "role": token.role.word(),
        "state": state,
        "ends": ends.map(|end| format!("in {}", show_seconds((end - now) as f64))),
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "uses_left": token.uses_left,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_good_no_longer_says_why() {
        let token = |expires_at, uses_left, revoked| {
            let status = TokenStatus {
                id: 7,
                role: Role::Worker,
                created_at: 0,
                expires_at,
                uses_left,
                revoked,
            };
            row(&status, 100)["state"].as_str().unwrap().to_owned()
        };
        assert_eq!(token(None, None, false), "good");
        assert_eq!(token(Some(101), Some(1), false), "good");
        assert_eq!(token(Some(100), None, false), "expired");
        assert_eq!(token(None, Some(0), false), "used up");
        assert_eq!(token(Some(101), None, true), "revoked");
    }
}
