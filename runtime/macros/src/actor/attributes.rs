//! What stands in `#[rdist::actor(..)]` and on the methods below it.

use proc_macro2::Span;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, Ident, ImplItemFn, LitInt, Result, Token, parenthesized};

/// Calls in flight of an actor with async methods, where nothing else is said. As Ray's.
const ASYNC_CONCURRENCY: u32 = 1_000;

const KNOWN: &str = "known are `max_concurrency = N`, `concurrency_groups(name = N, ..)`, \
                     `allow_out_of_order`, `max_task_retries = N` and `checkpoint`";

/// The arguments of `#[rdist::actor(..)]`.
#[derive(Default)]
pub(crate) struct Attributes {
    max_concurrency: Option<u32>,
    /// Groups with their limits, in the order of their declaration.
    pub(crate) groups: Vec<(Ident, u32)>,
    pub(crate) out_of_order: bool,
    pub(crate) max_task_retries: Option<u32>,
    /// The span of `checkpoint`, for errors.
    pub(crate) checkpoint: Option<Span>,
}

impl Attributes {
    /// Calls of methods without a group that may be in flight, where the class says it.
    pub(crate) fn limit(&self, has_async: bool) -> u32 {
        self.max_concurrency.unwrap_or(if has_async { ASYNC_CONCURRENCY } else { 1 })
    }

    /// Whether calls may run beside each other.
    pub(crate) fn is_concurrent(&self, has_async: bool) -> bool {
        self.max_concurrency.is_some() || !self.groups.is_empty() || has_async
    }

    /// Which group of calls a method belongs to, by its attribute, which is taken off: 0 is the
    /// default one, the declared ones follow.
    pub(crate) fn group_of(&self, function: &mut ImplItemFn) -> Result<usize> {
        let is_group = |attribute: &syn::Attribute| attribute.path().is_ident("concurrency_group");
        let Some(at) = function.attrs.iter().position(is_group) else { return Ok(0) };
        let attribute = function.attrs.remove(at);
        let name: Ident = attribute.parse_args()?;
        match self.groups.iter().position(|(group, _)| *group == name) {
            Some(group) => Ok(group + 1),
            None => {
                let text = format!(
                    "there is no such group; declare it: \
                     #[rdist::actor(concurrency_groups({name} = 2))]"
                );
                Err(Error::new(name.span(), text))
            }
        }
    }
}

impl Parse for Attributes {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut attributes = Self::default();
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            match name.to_string().as_str() {
                "max_concurrency" => {
                    input.parse::<Token![=]>()?;
                    attributes.max_concurrency = Some(positive(input)?);
                }
                "concurrency_groups" => {
                    let content;
                    parenthesized!(content in input);
                    let groups = Punctuated::<Group, Token![,]>::parse_terminated(&content)?;
                    for Group(name, limit) in groups {
                        if attributes.groups.iter().any(|(other, _)| *other == name) {
                            return Err(Error::new(name.span(), "this group is there already"));
                        }
                        attributes.groups.push((name, limit));
                    }
                }
                "allow_out_of_order" => attributes.out_of_order = true,
                "max_task_retries" => {
                    input.parse::<Token![=]>()?;
                    attributes.max_task_retries = Some(input.parse::<LitInt>()?.base10_parse()?);
                }
                "checkpoint" => attributes.checkpoint = Some(name.span()),
                other => {
                    return Err(Error::new(name.span(), format!("`{other}` is unknown; {KNOWN}")));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(attributes)
    }
}

struct Group(Ident, u32);

impl Parse for Group {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name = input.parse()?;
        input.parse::<Token![=]>()?;
        Ok(Self(name, positive(input)?))
    }
}

fn positive(input: ParseStream<'_>) -> Result<u32> {
    let number: LitInt = input.parse()?;
    match number.base10_parse()? {
        0 => Err(Error::new(number.span(), "at least one call has to be allowed to run")),
        limit => Ok(limit),
    }
}
