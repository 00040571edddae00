//! The attributes of job programs. Use them as `rdist::task`, `rdist::actor`, `rdist::main` and
//! `rdist::value`; their documentation has examples.
//!
//! Each one keeps the user's code as it is written and adds what makes it reachable from other
//! processes: an entry in the registry of functions, and a typed face for submitters. Errors point
//! at the user's own tokens and say what to write instead.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod actor;
mod main_function;
mod predicate;
mod signature;
mod task;
#[cfg(test)]
mod tests;
mod value;

use proc_macro::TokenStream;
use syn::{Error, ItemFn, ItemImpl, parse_macro_input};

/// Makes a function a task: something that other processes can run.
///
/// ```ignore
/// #[rdist::task]
/// fn square(x: u64) -> u64 { x * x }
///
/// let object: ObjectRef<u64> = square.submit(&cx, 7);
/// let object = square.with().cpus(2.0).retries(5).submit(&cx, &object);
/// ```
/// Parameters are values (see `rdist::value`), or `View<T>` to read a large one in place; a first
/// parameter `cx: &Context` is the task's own context. It may return a `Result`, whose error is
/// given to whoever waits for the value, and may be `async`. `square.run_here(7)` calls it as a
/// plain function.
///
/// A function may make several objects, which others then take one by one. With `returns = 3` it
/// returns a tuple, and `submit` gives a tuple of references; with `returns = each` it returns a
/// `Vec`, and `submit` takes how many elements that will have and gives so many references. Another
/// number is an error of all of them.
/// ```ignore
/// #[rdist::task(returns = 2)]
/// fn divide(a: u64, b: u64) -> (u64, u64) { (a / b, a % b) }
///
/// #[rdist::task(returns = each)]
/// fn split(data: Vec<f32>, parts: usize) -> Vec<Vec<f32>> { .. }
///
/// let (quotient, rest) = divide.submit(&cx, 17, 5);
/// let parts: Vec<ObjectRef<Vec<f32>>> = split.submit(&cx, 3_000, &data, 3_000);
/// ```
/// With `stream` it returns an iterator, and `submit` gives an `ObjectStream`: each item is an
/// object as soon as it is made, and the iterator goes on as its items are taken.
/// ```ignore
/// #[rdist::task(stream)]
/// fn lines(path: String) -> impl Iterator<Item = Result<String, std::io::Error>> { .. }
/// ```
#[proc_macro_attribute]
pub fn task(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let returns = parse_macro_input!(arguments as task::Returns);
    let function = parse_macro_input!(item as ItemFn);
    task::expand(returns, function).unwrap_or_else(Error::into_compile_error).into()
}

/// Makes a type an actor: state that lives in one process and is reached by calls in order.
///
/// ```ignore
/// struct Counter { total: u64 }
///
/// #[rdist::actor]
/// impl Counter {
///     fn new(start: u64) -> Self { Self { total: start } }
///     fn add(&mut self, by: u64) -> u64 { self.total += by; self.total }
/// }
///
/// let counter = Counter::spawn(&cx, 0).await?;
/// println!("{}", counter.add(2).call().await?);
/// ```
/// `new` makes the actor and may return a `Result`. Every method with `&self` or `&mut self` can
/// be called through a handle; put methods that should not be into another `impl` block. An error
/// or a panic of a method goes to its caller, and the actor lives on.
///
/// # Calls beside each other
/// As a rule an actor runs one call at a time. Three things change that; the type then has to be
/// `Sync`:
/// - `#[rdist::actor(max_concurrency = 8)]`: up to 8 calls at a time, on a thread each;
/// - an `async fn` with `&self`: calls that wait need no thread; up to 1,000 in flight, unless
///   `max_concurrency` says otherwise. Timers and sockets of tokio are at hand;
/// - `#[rdist::actor(concurrency_groups(io = 2, compute = 4))]`: methods that carry
///   `#[concurrency_group(io)]` have a limit and an order of their own; those without a group are
///   limited by `max_concurrency` (1, if nothing is said).
///
/// The language's own rule decides what runs together: methods with `&self` do, one with
/// `&mut self` waits until they have ended, and keeps later ones waiting until it has.
/// ```ignore
/// #[rdist::actor(max_concurrency = 100, concurrency_groups(disk = 2))]
/// impl Store {
///     fn new() -> Self { Self::default() }
///     async fn get(&self, key: String) -> Option<Vec<u8>> { /* .. */ }
///     #[concurrency_group(disk)]
///     fn flush(&self) { /* .. */ }
///     fn clear(&mut self) { /* .. */ }
/// }
/// ```
/// # Order and retries
/// Calls of one submitter start in the order in which they were made, also where an early one has
/// an argument that is not there yet. With `allow_out_of_order` each starts as soon as its
/// arguments are there. `max_task_retries = N` makes a call again that was lost with the actor's
/// process, once the actor is there again; it may then run twice. With `checkpoint` it does not:
/// see `rdist::Checkpoint`.
#[proc_macro_attribute]
pub fn actor(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let attributes = parse_macro_input!(arguments as actor::attributes::Attributes);
    let block = parse_macro_input!(item as ItemImpl);
    actor::expand(&attributes, block).unwrap_or_else(Error::into_compile_error).into()
}

/// Makes a function the program's main function, and a job's driver.
///
/// ```ignore
/// #[rdist::main]
/// async fn main(cx: Driver) -> rdist::Result<()> { Ok(()) }
/// ```
/// It may also be a plain `fn`, and may return any `Result` whose error displays itself.
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    if let Err(error) = signature::no_arguments(arguments, "main", "the options of `rdist submit`")
    {
        return error.into_compile_error().into();
    }
    let function = parse_macro_input!(item as ItemFn);
    main_function::expand(function).unwrap_or_else(Error::into_compile_error).into()
}

/// Makes a function a predicate, which says which errors of a task are worth another try.
///
/// ```ignore
/// #[rdist::predicate]
/// fn is_busy(fault: &Fault<'_>) -> bool {
///     fault.downcast_ref::<FetchError>().is_some_and(|error| error.status == 503)
/// }
///
/// let page = fetch.with().retry_errors(5, is_busy).submit(&cx, url);
/// ```
/// It runs where the task failed, right after it. One that panics accepts nothing.
#[proc_macro_attribute]
pub fn predicate(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let instead = "`retry_errors(n, predicate)`";
    if let Err(error) = signature::no_arguments(arguments, "predicate", instead) {
        return error.into_compile_error().into();
    }
    let function = parse_macro_input!(item as ItemFn);
    predicate::expand(function).unwrap_or_else(Error::into_compile_error).into()
}

/// Makes a type a value that tasks can take and return: adds rkyv's derives.
///
/// ```ignore
/// #[rdist::value]
/// #[derive(Debug, Clone)]
/// struct Image { width: u32, pixels: Vec<u8> }
/// ```
#[proc_macro_attribute]
pub fn value(arguments: TokenStream, item: TokenStream) -> TokenStream {
    if let Err(error) = signature::no_arguments(arguments, "value", "#[rkyv(..)] on the type") {
        return error.into_compile_error().into();
    }
    let input = parse_macro_input!(item as syn::DeriveInput);
    value::expand(&input).into()
}
