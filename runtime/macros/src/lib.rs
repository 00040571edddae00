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
/// ```
/// # use rdist::prelude::*;
/// #[rdist::task]
/// fn square(x: u64) -> u64 { x * x }
///
/// # fn f(cx: &Context) -> Result<()> {
/// let object: ObjectRef<u64> = square.submit(cx, 7_u64);
/// let object = square.with().cpus(2.0).retries(5).submit(cx, &object);
/// assert_eq!(object.get()?, 2_401);
/// # Ok(())
/// # }
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
/// ```
/// # use rdist::prelude::*;
/// #[rdist::task(returns = 2)]
/// fn divide(a: u64, b: u64) -> (u64, u64) { (a / b, a % b) }
///
/// #[rdist::task(returns = each)]
/// fn split(data: Vec<f32>, parts: u64) -> Vec<Vec<f32>> {
///     data.chunks(data.len().div_ceil(parts as usize)).map(<[f32]>::to_vec).collect()
/// }
///
/// # fn f(cx: &Context, data: &ObjectRef<Vec<f32>>) {
/// let (quotient, rest) = divide.submit(cx, 17_u64, 5_u64);
/// let parts: Vec<ObjectRef<Vec<f32>>> = split.submit(cx, 3_000, data, 3_000_u64);
/// # }
/// ```
/// With `stream` it returns an iterator, and `submit` gives an `ObjectStream`: each item is an
/// object as soon as it is made, and the iterator goes on as its items are taken.
/// ```
/// # use rdist::prelude::*;
/// use std::io::BufRead as _;
///
/// #[rdist::task(stream)]
/// fn lines(path: String) -> Box<dyn Iterator<Item = Result<String, std::io::Error>>> {
///     match std::fs::File::open(path) {
///         Ok(file) => Box::new(std::io::BufReader::new(file).lines()),
///         Err(error) => Box::new(std::iter::once(Err(error))),
///     }
/// }
///
/// # async fn f(cx: &Context) -> Result<()> {
/// let mut stream = lines.submit(cx, "words.txt".to_owned());
/// while let Some(line) = stream.next().await {
///     println!("{}", line?.await?);
/// }
/// # Ok(())
/// # }
/// ```
#[proc_macro_attribute]
pub fn task(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let returns = parse_macro_input!(arguments as task::Returns);
    let function = parse_macro_input!(item as ItemFn);
    task::expand(returns, function).unwrap_or_else(Error::into_compile_error).into()
}

/// Makes a type an actor: state that lives in one process and is reached by calls in order.
///
/// ```
/// # use rdist::prelude::*;
/// struct Counter { total: u64 }
///
/// #[rdist::actor]
/// impl Counter {
///     fn new(start: u64) -> Self { Self { total: start } }
///     fn add(&mut self, by: u64) -> u64 { self.total += by; self.total }
/// }
///
/// # async fn f(cx: &Context) -> Result<()> {
/// let counter = Counter::spawn(cx, 0_u64).await?;
/// println!("{}", counter.add(2_u64).call().await?);
/// // One for the whole cluster, which outlives this job until somebody kills it.
/// let shared = Counter::with().name("visits").get_if_exists().detached();
/// let shared = shared.max_restarts(3).spawn(cx, 0_u64).await?;
/// shared.add(1_u64).call().await?;
/// # Ok(())
/// # }
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
/// ```
/// # use rdist::prelude::*;
/// #[derive(Default)]
/// struct Store { values: std::collections::HashMap<String, Vec<u8>> }
///
/// #[rdist::actor(max_concurrency = 100, concurrency_groups(disk = 2))]
/// impl Store {
///     fn new() -> Self { Self::default() }
///     async fn get(&self, key: String) -> Option<Vec<u8>> { self.values.get(&key).cloned() }
///     #[concurrency_group(disk)]
///     fn save(&self, path: String) -> u64 { self.values.len() as u64 }
///     fn clear(&mut self) { self.values.clear() }
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
/// ```no_run
/// use rdist::prelude::*;
///
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
/// ```
/// # use rdist::prelude::*;
/// # #[derive(Debug)]
/// # struct FetchError { status: u32 }
/// # impl std::fmt::Display for FetchError {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { self.status.fmt(f) }
/// # }
/// # impl std::error::Error for FetchError {}
/// # #[rdist::task]
/// # fn fetch(url: String) -> Result<String, FetchError> { Err(FetchError { status: 503 }) }
/// #[rdist::predicate]
/// fn is_busy(fault: &Fault<'_>) -> bool {
///     fault.downcast_ref::<FetchError>().is_some_and(|error| error.status == 503)
/// }
///
/// # fn f(cx: &Context, url: String) {
/// use std::time::Duration;
///
/// let page = fetch.with().retry_errors(5, is_busy).timeout(Duration::from_secs(30));
/// let page = page.backoff(Duration::from_millis(100), Duration::from_secs(10)).priority(1);
/// let page = page.submit(cx, url);
/// # }
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
/// ```
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
