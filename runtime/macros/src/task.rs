//! `#[rdist::task]`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::{Error, FnArg, Ident, ItemFn, LitInt, Result, Token};

use crate::signature::{Context, Remote};

/// What `#[rdist::task(..)]` says about the values that a function returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returns {
    /// Nothing: it returns one.
    One,
    /// `returns = 3`: a tuple, of which each part is an object.
    Tuple(u32),
    /// `stream`: an iterator, each item of which becomes an object as soon as it is made.
    Stream,
    /// `returns = each`: a `Vec`, of which each element is an object; the submitter says how many.
    Each,
}

impl Parse for Returns {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        const OPTIONS: &str = "#[rdist::task] takes `returns = 3` for a tuple, `returns = each` \
                               for a Vec or `stream` for an iterator; other options are given by \
                               square.with().cpus(2.0)";
        if input.is_empty() {
            return Ok(Self::One);
        }
        let name: Ident = input.parse().map_err(|error| Error::new(error.span(), OPTIONS))?;
        if name == "stream" && input.is_empty() {
            return Ok(Self::Stream);
        }
        if name != "returns" {
            return Err(Error::new(name.span(), OPTIONS));
        }
        input.parse::<Token![=]>()?;
        let returns = if input.peek(LitInt) {
            let count: LitInt = input.parse()?;
            match count.base10_parse::<u32>()? {
                2..=12 => Self::Tuple(count.base10_parse()?),
                _ => {
                    let text = "a tuple of 2 to 12 values; for more, return a Vec and say \
                                `returns = each`";
                    return Err(Error::new(count.span(), text));
                }
            }
        } else {
            let word: Ident = input.parse().map_err(|error| Error::new(error.span(), OPTIONS))?;
            if word != "each" {
                return Err(Error::new(word.span(), OPTIONS));
            }
            Self::Each
        };
        if input.is_empty() { Ok(returns) } else { Err(input.error(OPTIONS)) }
    }
}

/// What depends on the number of values.
struct Shape {
    /// A parameter of `submit`, and its name.
    parameter: TokenStream,
    name: TokenStream,
    /// What `submit` returns, and the function that makes it.
    submitted: TokenStream,
    submit: TokenStream,
    /// From the function's value, what the worker is told.
    encode: TokenStream,
    check: TokenStream,
    options: TokenStream,
}

impl Returns {
    fn shape(self, remote: &Remote) -> Shape {
        let value = &remote.value();
        let private = quote!(::rdist::__private);
        match self {
            Self::One => Shape {
                parameter: quote!(),
                name: quote!(),
                submitted: quote!(::rdist::ObjectRef<#value>),
                submit: quote!(#private::submit),
                encode: quote!(#private::encode(cx, &value)),
                check: quote!(),
                options: quote!(),
            },
            Self::Tuple(count) => Shape {
                parameter: quote!(),
                name: quote!(),
                submitted: quote!(<#value as #private::Several>::References),
                submit: quote!(#private::submit_several::<#value>),
                encode: quote!(#private::encode_several(cx, &value)),
                options: quote!(),
                check: quote! {
                    const _: () = ::core::assert!(
                        <#value as #private::Several>::COUNT == #count,
                        "the function returns a tuple of another length than `returns` says"
                    );
                },
            },
            Self::Stream => Shape {
                parameter: quote!(),
                name: quote!(),
                submitted: quote!(::rdist::ObjectStream<#value>),
                submit: quote!(#private::submit_stream::<#value>),
                encode: {
                    let item = remote.unwrap(quote!(item));
                    quote!(#private::yield_all(cx, value, |item| {
                        let item: #value = #item;
                        ::core::result::Result::Ok(item)
                    }))
                },
                check: quote!(),
                options: quote!(::rdist::__stream_option_methods!();),
            },
            Self::Each => Shape {
                parameter: quote!(returns: usize,),
                name: quote!(returns,),
                submitted: quote! {
                    ::std::vec::Vec<::rdist::ObjectRef<<#value as #private::List>::Item>>
                },
                submit: quote!(#private::submit_each::<#value>),
                encode: quote!(#private::encode_each(cx, &value)),
                check: quote!(),
                options: quote!(),
            },
        }
    }
}

pub(crate) fn expand(returns: Returns, mut function: ItemFn) -> Result<TokenStream> {
    if let Some(FnArg::Receiver(receiver)) = function.sig.inputs.first() {
        let text = "a task is a plain function; for methods put #[rdist::actor] on the impl block";
        return Err(Error::new_spanned(receiver, text));
    }
    let remote = match returns {
        Returns::Stream => Remote::of_stream(&function.sig)?,
        _ => Remote::of(&function.sig, "a task")?,
    };
    let name = function.sig.ident.clone();
    let text = name.to_string();
    let visibility = function.vis.clone();
    // Docs and attributes of lints belong to both the name that users see and the function.
    let docs: Vec<_> = function
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc") || attribute.path().is_ident("cfg"))
        .cloned()
        .collect();
    let inner = format_ident!("{}_task", name);
    function.sig.ident = inner.clone();
    function.vis = syn::Visibility::Inherited;

    let shape = returns.shape(&remote);
    let here = run_here(&function, &remote, &inner);
    let own = quote!(concat!(module_path!(), "::", #text));
    let run = run_anywhere(returns, &remote, &inner, &shape);
    let submitting = submitting(&name, &remote, &shape, &here);
    let check = &shape.check;
    Ok(quote! {
        #(#docs)*
        #[allow(non_camel_case_types)]
        #[derive(Debug, Clone, Copy)]
        #visibility struct #name;

        const _: () = {
            #[allow(clippy::unused_async)]
            #function

            const ID: u64 = ::rdist::__private::function_id(#own);

            #run

            #check

            ::rdist::__private::inventory::submit! {
                ::rdist::__private::Function {
                    id: ID,
                    name: #own,
                    body: ::rdist::__private::Body::Task(run),
                }
            }

            #submitting
        };
    })
}

/// The function as executors call it: from archived arguments to archived values.
fn run_anywhere(returns: Returns, remote: &Remote, inner: &Ident, shape: &Shape) -> TokenStream {
    let (unpack, value, encode) = (remote.unpack(), remote.value(), &shape.encode);
    let result = match returns {
        Returns::Stream => {
            let items = remote.invoke(quote!(#inner), None);
            quote!(let value = #items;)
        }
        _ => {
            let result = remote.unwrap(remote.invoke(quote!(#inner), None));
            quote!(let value: #value = #result;)
        }
    };
    quote! {
        #[allow(clippy::let_unit_value, clippy::unit_arg)]
        fn run(
            arguments: &mut ::rdist::__private::Arguments<'_>,
            cx: &::rdist::Context,
        ) -> ::core::result::Result<::rdist::__private::Encoded, ::rdist::__private::Failure>
        {
            let _ = &arguments;
            #unpack
            #result
            #encode
        }
    }
}

/// What its name and its options offer.
fn submitting(name: &Ident, remote: &Remote, shape: &Shape, here: &TokenStream) -> TokenStream {
    let (parameters, names, packed) = (remote.submit_parameters(), remote.names(), remote.packed());
    let Shape { parameter, name: count, submitted, submit, options, .. } = shape;
    quote! {
        /// How a task is to run; ended by `submit`.
        #[derive(Debug, Clone)]
        #[must_use = "options do nothing until `.submit(..)`"]
        pub struct With {
            options: ::rdist::TaskOptions,
        }

        #[allow(dead_code, clippy::too_many_arguments)]
        impl #name {
            /// Submits the task; the value is there when it has run.
            pub fn submit(self, cx: &::rdist::Context, #parameter #parameters) -> #submitted {
                self.with().submit(cx, #count #names)
            }

            /// Options, before `submit`.
            pub fn with(self) -> With {
                With { options: ::rdist::TaskOptions::of_task() }
            }

            #here
        }

        #[allow(dead_code, clippy::too_many_arguments)]
        impl With {
            ::rdist::__option_methods!();
            ::rdist::__task_option_methods!();
            #options

            /// Submits the task; the value is there when it has run.
            pub fn submit(self, cx: &::rdist::Context, #parameter #parameters) -> #submitted {
                #submit(cx, ID, self.options, #count #packed)
            }
        }
    }
}

/// The function itself, to be called in place.
fn run_here(function: &ItemFn, remote: &Remote, inner: &Ident) -> TokenStream {
    let output = &function.sig.output;
    let asyncness = &function.sig.asyncness;
    let waits = asyncness.is_some().then(|| quote!(.await));
    let parameters = remote.arguments.iter().map(|argument| {
        let (name, ty) = (&argument.name, &argument.ty);
        quote!(#name: #ty)
    });
    let names = remote.names();
    let (context, given) = match remote.takes_context {
        None => (quote!(), quote!()),
        Some(Context::Reference) => (quote!(cx: &::rdist::Context,), quote!(cx,)),
        Some(Context::Owned) => (quote!(cx: ::rdist::Context,), quote!(cx,)),
    };
    quote! {
        /// Calls the function here and now.
        #[allow(clippy::unused_async)]
        pub #asyncness fn run_here(self, #context #(#parameters,)*) #output {
            #inner(#given #names) #waits
        }
    }
}
