//! `#[rdist::actor]`.

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{format_ident, quote};
use syn::{Error, FnArg, ImplItem, ImplItemFn, ItemImpl, Receiver, Result, Signature, Type};

use crate::signature::{Output, Remote};

/// Names that a handle has already.
const TAKEN: [&str; 5] = ["id", "kill", "clone", "spawn", "with"];

pub(crate) fn expand(block: ItemImpl) -> Result<TokenStream> {
    let name = actor_name(&block)?;
    let functions = block.items.iter().filter_map(|item| match item {
        ImplItem::Fn(function) => Some(function),
        _ => None,
    });
    let mut constructor = None;
    let mut methods = Vec::new();
    for function in functions {
        match function.sig.inputs.first() {
            Some(FnArg::Receiver(receiver)) => methods.push(method(&name, function, receiver)?),
            _ if function.sig.ident == "new" => {
                constructor = Some(expand_constructor(&name, function)?);
            }
            _ => {}
        }
    }
    let Some(constructor) = constructor else {
        let text = "an actor needs `fn new(..) -> Self` (or `-> Result<Self, E>`), which makes it";
        return Err(Error::new_spanned(&block.self_ty, text));
    };
    let (faces, runs): (Vec<_>, Vec<_>) = methods.into_iter().unzip();
    let methods_name = format_ident!("{}Methods", name);
    Ok(quote! {
        #block

        const _: () = {
            /// The methods of a handle; each makes a call, which is then awaited or sent.
            #[derive(Debug, Clone, Copy)]
            pub struct #methods_name(::rdist::__private::RawActor);

            impl ::core::convert::From<::rdist::__private::RawActor> for #methods_name {
                fn from(raw: ::rdist::__private::RawActor) -> Self {
                    Self(raw)
                }
            }

            impl ::rdist::Actor for #name {
                type Methods = #methods_name;
            }

            #[allow(dead_code, clippy::too_many_arguments)]
            impl #methods_name {
                #(#faces)*
            }

            #constructor
            #(#runs)*
        };
    })
}

fn actor_name(block: &ItemImpl) -> Result<syn::Ident> {
    if let Some((_, path, _)) = &block.trait_ {
        let text = "put #[rdist::actor] on the actor's own `impl` block, not on one of a trait";
        return Err(Error::new_spanned(path, text));
    }
    if !block.generics.params.is_empty() {
        let text = "an actor cannot be generic: other processes find it by name; write one for \
                    each type";
        return Err(Error::new_spanned(&block.generics, text));
    }
    match &*block.self_ty {
        Type::Path(path) if path.qself.is_none() => match path.path.get_ident() {
            Some(name) => Ok(name.clone()),
            None => Err(Error::new_spanned(path, "name the actor's type without its path")),
        },
        other => Err(Error::new_spanned(other, "an actor is a struct or an enum of its own")),
    }
}

/// A signature with the actor's name in place of `Self`, to be repeated elsewhere.
fn named(signature: &Signature, actor: &syn::Ident) -> Signature {
    fn rename(tokens: TokenStream, actor: &syn::Ident) -> TokenStream {
        let tokens = tokens.into_iter().map(|token| match token {
            TokenTree::Ident(ident) if ident == "Self" => {
                TokenTree::Ident(syn::Ident::new(&actor.to_string(), ident.span()))
            }
            TokenTree::Group(group) => {
                let mut renamed = Group::new(group.delimiter(), rename(group.stream(), actor));
                renamed.set_span(group.span());
                TokenTree::Group(renamed)
            }
            other => other,
        });
        tokens.collect()
    }
    let renamed = rename(quote!(#signature), actor);
    syn::parse2(renamed).unwrap_or_else(|_| signature.clone())
}

/// `spawn`, `with`, and the registration of `new`.
fn expand_constructor(name: &syn::Ident, function: &ImplItemFn) -> Result<TokenStream> {
    let remote = Remote::of(&named(&function.sig, name), "an actor's constructor")?;
    let visibility = &function.vis;
    let (parameters, names, packed) = (remote.submit_parameters(), remote.names(), remote.packed());
    let unpack = remote.unpack();
    let made = remote.unwrap(remote.invoke(quote!(<#name>::new), None));
    let text = format!("{name}::new");
    let own = quote!(concat!(module_path!(), "::", #text));
    Ok(quote! {
        const NEW: u64 = ::rdist::__private::function_id(#own);

        fn make(
            arguments: &mut ::rdist::__private::Arguments<'_>,
            cx: &::rdist::Context,
        ) -> ::core::result::Result<
            ::std::boxed::Box<dyn ::core::any::Any + ::core::marker::Send>,
            ::rdist::__private::Failure,
        > {
            let _ = (&arguments, cx);
            #unpack
            let actor: #name = #made;
            ::core::result::Result::Ok(::std::boxed::Box::new(actor))
        }

        ::rdist::__private::inventory::submit! {
            ::rdist::__private::Function {
                id: NEW,
                name: #own,
                body: ::rdist::__private::Body::Actor(make),
            }
        }

        /// How an actor is to live; ended by `spawn`.
        #[derive(Debug, Clone)]
        #[must_use = "options do nothing until `.spawn(..)`"]
        pub struct With {
            options: ::rdist::TaskOptions,
        }

        #[allow(dead_code, clippy::too_many_arguments)]
        impl With {
            ::rdist::__option_methods!();
            ::rdist::__actor_option_methods!();

            /// Makes the actor.
            pub fn spawn(self, cx: &::rdist::Context, #parameters) -> ::rdist::Spawning<#name> {
                ::rdist::Spawning::new(cx, NEW, self.options, #packed)
            }
        }

        #[allow(dead_code, clippy::too_many_arguments)]
        impl #name {
            /// Makes an actor somewhere in the cluster.
            #visibility fn spawn(cx: &::rdist::Context, #parameters) -> ::rdist::Spawning<#name> {
                Self::with().spawn(cx, #names)
            }

            /// Options, before `spawn`.
            #visibility fn with() -> With {
                With { options: ::rdist::TaskOptions::of_actor() }
            }
        }
    })
}

/// The method of the handle, and the registration of the actor's.
fn method(
    actor: &syn::Ident,
    function: &ImplItemFn,
    receiver: &Receiver,
) -> Result<(TokenStream, TokenStream)> {
    if receiver.reference.is_none() || receiver.colon_token.is_some() {
        let text = "an actor's method takes `&self` or `&mut self`: the actor stays where it is";
        return Err(Error::new_spanned(receiver, text));
    }
    let name = &function.sig.ident;
    if TAKEN.iter().any(|taken| name == taken) {
        let text = format!("every handle has a `{name}` of its own; use another name");
        return Err(Error::new_spanned(name, text));
    }
    let remote = Remote::of(&named(&function.sig, actor), "an actor's method")?;
    if let Output::Plain(ty) = &remote.output
        && *actor == ty.to_string()
    {
        let text = "an actor's method cannot return the actor: it stays where it is";
        return Err(Error::new_spanned(&function.sig.output, text));
    }
    let visibility = &function.vis;
    let docs = function.attrs.iter().filter(|attribute| attribute.path().is_ident("doc"));
    let (parameters, packed) = (remote.submit_parameters(), remote.packed());
    let value = remote.value();
    let unpack = remote.unpack();
    let result = remote.unwrap(remote.invoke(quote!(<#actor>::#name), Some(quote!(actor))));
    let text = format!("{actor}::{name}");
    let own = quote!(concat!(module_path!(), "::", #text));
    let run = format_ident!("run_{}", name);
    let face = quote! {
        #(#docs)*
        #visibility fn #name(&self, #parameters) -> ::rdist::Call<#value> {
            const ID: u64 = ::rdist::__private::function_id(#own);
            self.0.call(ID, |cx| {
                let _ = cx;
                #packed
            })
        }
    };
    let registration = quote! {
        #[allow(clippy::let_unit_value, clippy::unit_arg)]
        fn #run(
            actor: &mut (dyn ::core::any::Any + ::core::marker::Send),
            arguments: &mut ::rdist::__private::Arguments<'_>,
            cx: &::rdist::Context,
        ) -> ::core::result::Result<::rdist::__private::Encoded, ::rdist::__private::Failure> {
            let _ = &arguments;
            let actor: &mut #actor = match actor.downcast_mut() {
                ::core::option::Option::Some(actor) => actor,
                ::core::option::Option::None => {
                    return ::core::result::Result::Err(::rdist::__private::not_this_actor(#text));
                }
            };
            #unpack
            let value: #value = #result;
            ::rdist::__private::encode(cx, &value)
        }

        ::rdist::__private::inventory::submit! {
            ::rdist::__private::Function {
                id: ::rdist::__private::function_id(#own),
                name: #own,
                body: ::rdist::__private::Body::Method(#run),
            }
        }
    };
    Ok((face, registration))
}
