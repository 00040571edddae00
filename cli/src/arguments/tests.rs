use clap::CommandFactory as _;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn every_command_shows_an_example() {
    fn visit(command: &clap::Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains("Example"), "`{path} --help` has no example");
        assert!(help.contains("rdist "), "the example of `{path}` does not call rdist");
        command.get_subcommands().for_each(|inner| visit(inner, &path));
    }
    visit(&Arguments::command(), "");
}

#[test]
fn what_the_design_promises_parses() {
    for line in [
        "rdist head start --listen 127.0.0.1:0 --foreground",
        "rdist worker join --cpus 2 --gpus 1 --memory 4GiB --resource tpu=2 --label zone=a",
        "rdist worker join 10.0.0.5:7420 --token T",
        "rdist submit workloads/mnist.toml --set train.epochs=2 --detach --json",
        "rdist submit workloads/mnist.toml --data ../data",
        "rdist submit workloads/mnist.toml --dry-run --json",
        "rdist submit ./program -- --its own",
        "rdist submit ./program --timeout 5",
        "rdist --json list workers",
        "rdist logs 3 -f",
        "rdist token create --role read-only --ttl 30m --uses 2",
        "rdist graph workloads/mnist.toml --dot",
    ] {
        let parsed = Arguments::try_parse_from(line.split(' '));
        assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        "rdist worker join --cpus -1",
        "rdist worker join --label zone",
        "rdist submit ./program --set novalue",
        "rdist token create --uses 0",
        "rdist list everything",
    ] {
        assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line}");
    }
}
