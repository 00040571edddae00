//! Hosts with networks of their own on this machine: each is a network namespace, whose one
//! interface is plugged by a cable (a veth pair) into a switch (a bridge) in a further namespace.
//! Everything is made with `ip`, by root, and gone with the value.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// Of each host.
const INTERFACE: &str = "eth0";
const SWITCH: &str = "switch";

/// The hosts, their cables and the switch.
pub(crate) struct Lan {
    /// Of the names of its namespaces, which no other one has.
    prefix: String,
    /// What has a namespace: the switch, then the hosts, of which the n-th has the address n.
    names: Vec<&'static str>,
}

impl Lan {
    /// `None`, and says why, where there can be none. Where all tests have to run there must be.
    pub(crate) fn of(hosts: &[&'static str]) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("rdist-test-{}-{number}", std::process::id());
        let mut lan = Self { prefix, names: Vec::new() };
        let Err(reason) = lan.lay(hosts) else { return Some(lan) };
        let reason = format!("no network namespaces (they take root and iproute2): {reason}");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{reason}");
        // Past what is only shown when a test fails.
        let _ = writeln!(std::io::stderr(), "skipped: {reason}");
        None
    }

    fn lay(&mut self, hosts: &[&'static str]) -> Result<(), String> {
        self.add(SWITCH)?;
        self.ip_at(SWITCH, &["link", "add", SWITCH, "type", "bridge"])?;
        self.ip_at(SWITCH, &["link", "set", SWITCH, "up"])?;
        for host in hosts {
            self.add(host)?;
            let cable = ["link", "add", "name", host, "type", "veth", "peer", "name", INTERFACE];
            self.ip_at(SWITCH, &[&cable[..], &["netns", &self.namespace(host)]].concat())?;
            self.ip_at(SWITCH, &["link", "set", "dev", host, "master", SWITCH, "up"])?;
            self.change_address(host, "add", self.address(host))?;
            self.ip_at(host, &["link", "set", INTERFACE, "up"])?;
            self.ip_at(host, &["link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn add(&mut self, name: &'static str) -> Result<(), String> {
        ip(&["netns", "add", &self.namespace(name)])?;
        self.names.push(name);
        Ok(())
    }

    /// What a host's network is called on this machine.
    pub(crate) fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// Where a host is from the beginning.
    pub(crate) fn address(&self, host: &str) -> Ipv4Addr {
        let number = self.names.iter().position(|name| *name == host);
        let number = number.unwrap_or_else(|| panic!("no host {host} in {:?}", self.names));
        Ipv4Addr::new(10, 77, 0, u8::try_from(number).unwrap())
    }

    /// Takes a host's interface down or up again, as its administrator would: it has no routes
    /// meanwhile, and cannot send.
    pub(crate) fn set_interface(&self, host: &str, state: State) {
        self.ip_at(host, &["link", "set", INTERFACE, state.word()]).unwrap();
    }

    /// Does the same to its port of the switch.
    pub(crate) fn set_port(&self, host: &str, state: State) {
        self.ip_at(SWITCH, &["link", "set", "dev", host, state.word()]).unwrap();
    }

    /// Gives a host another address in the place of the one that it had from the beginning.
    pub(crate) fn renumber(&self, host: &str, address: Ipv4Addr) {
        self.change_address(host, "del", self.address(host)).unwrap();
        self.change_address(host, "add", address).unwrap();
    }

    fn change_address(&self, host: &str, how: &str, address: Ipv4Addr) -> Result<(), String> {
        let network = format!("{address}/24");
        self.ip_at(host, &["address", how, &network, "dev", INTERFACE]).map(drop)
    }

    /// Bytes that have come to a host by its cable.
    pub(crate) fn received(&self, host: &str) -> u64 {
        let shown = self.ip_at(host, &["-statistics", "-json", "link", "show", "dev", INTERFACE]);
        let shown: Value = serde_json::from_slice(&shown.unwrap()).unwrap();
        let bytes = shown[0]["stats64"]["rx"]["bytes"].as_u64();
        bytes.unwrap_or_else(|| panic!("no bytes received in {shown}"))
    }

    fn ip_at(&self, name: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
        ip(&[&["-netns", &self.namespace(name)], arguments].concat())
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in &self.names {
            let removed = ip(&["netns", "del", &self.namespace(name)]);
            assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
        }
    }
}

/// Of an interface.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State {
    Up,
    Down,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// Runs `ip`; returns what it prints, or what is wrong.
fn ip(arguments: &[&str]) -> Result<Vec<u8>, String> {
    let shown = || format!("`ip {}`", arguments.join(" "));
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| format!("{}: {error}", shown()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}: {}", shown(), output.status, stderr.trim()))
}

#[test]
fn nothing_of_a_lan_is_left_when_its_test_has_ended_or_failed() {
    let Some(lan) = Lan::of(&["a", "b"]) else { return };
    let prefix = lan.prefix.clone();
    let left = || {
        let names = String::from_utf8(ip(&["netns", "list"]).unwrap()).unwrap();
        names.lines().filter(|name| name.starts_with(&prefix)).count()
    };
    assert_eq!(left(), 3);
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _lan = lan;
        panic!("as a test does");
    }));
    assert!(failed.is_err());
    assert_eq!(left(), 0);
}
