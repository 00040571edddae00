//! What users read when they write something that cannot work.

use quote::quote;
use syn::parse2;

use crate::actor::attributes::Attributes;
use crate::task::Returns;

/// The message for a function under `#[rdist::task]`.
fn task(code: proc_macro2::TokenStream) -> String {
    refusal(crate::task::expand(Returns::One, parse2(code).unwrap()))
}

/// The message for an `impl` block under `#[rdist::actor]`.
fn actor(code: proc_macro2::TokenStream) -> String {
    refusal(crate::actor::expand(&Attributes::default(), parse2(code).unwrap()))
}

/// The message for an `impl` block under `#[rdist::actor(..)]`.
fn actor_with(attributes: proc_macro2::TokenStream, code: proc_macro2::TokenStream) -> String {
    let expanded = parse2::<Attributes>(attributes)
        .and_then(|attributes| crate::actor::expand(&attributes, parse2(code)?));
    refusal(expanded)
}

/// The message for a function under `#[rdist::main]`.
fn main_function(code: proc_macro2::TokenStream) -> String {
    refusal(crate::main_function::expand(parse2(code).unwrap()))
}

fn refusal(result: syn::Result<proc_macro2::TokenStream>) -> String {
    result.expect_err("it must be refused").to_string()
}

#[test]
fn tasks_that_cannot_be_found_by_name_or_fed_from_elsewhere_are_refused() {
    let cases = [
        (
            quote!(
                fn f<T>(x: T) {}
            ),
            "a task cannot be generic",
        ),
        (
            quote!(
                fn f(x: impl Clone) {}
            ),
            "a task cannot be generic: name the type",
        ),
        (
            quote!(
                fn f(x: &Vec<f32>) {}
            ),
            "Take the value itself, or `View<T>`",
        ),
        (
            quote!(
                fn f(&self) {}
            ),
            "put #[rdist::actor] on the impl block",
        ),
        (
            quote!(
                unsafe fn f() {}
            ),
            "a task cannot be unsafe",
        ),
        (
            quote!(
                fn f(x: u64, cx: &Context) {}
            ),
            "the context of a task is its first parameter",
        ),
        (
            quote!(
                fn f() -> &'static str {
                    ""
                }
            ),
            "a task returns an owned value",
        ),
        (
            quote!(
                fn f() -> impl Iterator<Item = u8> {}
            ),
            "a task returns an owned value",
        ),
    ];
    for (code, wanted) in cases {
        let message = task(code);
        assert!(message.contains(wanted), "{message}");
    }
}

#[test]
fn actors_without_what_makes_them_are_refused() {
    let cases = [
        (quote!(impl A { fn f(&self) {} }), "an actor needs `fn new(..) -> Self`"),
        (
            quote!(
                impl<T> A<T> {
                    fn new() -> Self {}
                }
            ),
            "an actor cannot be generic",
        ),
        (quote!(impl Clone for A { fn clone(&self) -> Self {} }), "not on one of a trait"),
        (quote!(impl A { fn new() -> Self {} fn f(self) {} }), "takes `&self` or `&mut self`"),
        (quote!(impl A { fn new() -> Self {} fn kill(&self) {} }), "has a `kill` of its own"),
        (quote!(impl A { fn new() -> Self {} fn f(&self) -> Self {} }), "cannot return the actor"),
        (quote!(impl A { fn new(x: &str) -> Self {} }), "cannot take a reference"),
        (quote!(impl a::A { fn new() -> Self {} }), "without its path"),
    ];
    for (code, wanted) in cases {
        let message = actor(code);
        assert!(message.contains(wanted), "{message}");
    }
}

#[test]
fn attributes_of_actors_that_make_no_sense_are_refused() {
    let plain = || quote!(impl A { fn new() -> Self {} fn f(&self) {} });
    let grouped = quote!(impl A { fn new() -> Self {} #[concurrency_group(disk)] fn f(&self) {} });
    let is_async = quote!(impl A { fn new() -> Self {} async fn f(&self) {} });
    let cases = [
        (quote!(max_concurency = 3), plain(), "`max_concurency` is unknown; known are"),
        (quote!(max_concurrency = 0), plain(), "at least one call"),
        (quote!(concurrency_groups(io = 1, io = 2)), plain(), "there already"),
        (quote!(concurrency_groups(io = 1)), grouped, "there is no such group; declare it"),
        (quote!(checkpoint, max_concurrency = 2), plain(), "runs one call at a time"),
        (quote!(checkpoint), is_async, "let async methods take `&mut self`"),
    ];
    for (attributes, code, wanted) in cases {
        let message = actor_with(attributes, code);
        assert!(message.contains(wanted), "{message}");
    }
}

#[test]
fn main_takes_the_driver_alone() {
    let cases = [
        (
            quote!(
                async fn run(cx: Driver) {}
            ),
            "belongs on `main`",
        ),
        (
            quote!(
                fn main(cx: Driver, x: u8) {}
            ),
            "std::env::args()",
        ),
    ];
    for (code, wanted) in cases {
        let message = main_function(code);
        assert!(message.contains(wanted), "{message}");
    }
}

#[test]
fn self_stands_for_the_actor_in_every_signature() {
    let code = quote! {
        impl Peer {
            fn new(others: Vec<ActorHandle<Self>>) -> Result<Self, String> {}
            fn meet(&mut self, other: ActorHandle<Self>) -> Option<ActorHandle<Self>> {}
        }
    };
    let expanded =
        crate::actor::expand(&Attributes::default(), parse2(code).unwrap()).unwrap().to_string();
    let faces = expanded.split("impl PeerMethods").nth(1).unwrap();
    assert!(faces.contains("Call < Option < ActorHandle < Peer > > >"), "{faces}");
}

#[test]
fn what_a_task_returns_is_said_in_one_of_four_ways() {
    let parse = |code| parse2::<Returns>(code);
    assert_eq!(parse(quote!()).unwrap(), Returns::One);
    assert_eq!(parse(quote!(returns = 3)).unwrap(), Returns::Tuple(3));
    assert_eq!(parse(quote!(returns = each)).unwrap(), Returns::Each);
    assert_eq!(parse(quote!(stream)).unwrap(), Returns::Stream);
    let cases = [
        (quote!(returns = 1), "a tuple of 2 to 12 values"),
        (quote!(returns = many), "takes `returns = 3`"),
        (quote!(cpus = 3), "square.with().cpus(2.0)"),
        (quote!(returns = 3, cpus = 3), "square.with().cpus(2.0)"),
    ];
    for (code, wanted) in cases {
        let said = parse(code).unwrap_err().to_string();
        assert!(said.contains(wanted), "{said}");
    }
}

#[test]
fn a_task_that_yields_returns_an_iterator() {
    let expand = |code| crate::task::expand(Returns::Stream, parse2(code).unwrap());
    assert!(
        expand(quote!(
            fn f(n: u32) -> impl Iterator<Item = u32> {
                0..n
            }
        ))
        .is_ok()
    );
    assert!(
        expand(quote!(
            fn f() -> Box<dyn Iterator<Item = Result<u32>> + Send> {
                x
            }
        ))
        .is_ok()
    );
    let cases = [
        (
            quote!(
                fn f() -> Vec<u32> {
                    x
                }
            ),
            "returns `impl Iterator<Item = T>`",
        ),
        (
            quote!(
                fn f() {}
            ),
            "returns `impl Iterator<Item = T>`",
        ),
        (
            quote!(
                async fn f() -> impl Iterator<Item = u32> {
                    x
                }
            ),
            "no `async fn`",
        ),
        (
            quote!(
                fn f<T>() -> impl Iterator<Item = T> {
                    x
                }
            ),
            "a task cannot be generic",
        ),
    ];
    for (code, wanted) in cases {
        let said = refusal(expand(code));
        assert!(said.contains(wanted), "{said}");
    }
}
