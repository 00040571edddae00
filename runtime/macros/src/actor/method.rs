//! A method of an actor: its face on the handle, and its entry in the registry.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Error, FnArg, Ident, ImplItemFn, Receiver, Result};

use super::named;
use crate::signature::{Output, Remote};

/// Names that a handle has already.
const TAKEN: [&str; 6] = ["id", "kill", "terminate", "clone", "spawn", "with"];

/// How a method gets at the actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Alone: it takes `&mut self`, or the actor runs one call at a time.
    Exclusive,
    /// Beside other calls.
    Shared,
    /// Beside other calls, without a thread while it waits.
    Async,
}

/// A method that others can call.
pub(crate) struct Method {
    name: Ident,
    remote: Remote,
    visibility: syn::Visibility,
    docs: Vec<syn::Attribute>,
    group: usize,
    takes_mut: bool,
}

impl Method {
    pub(crate) fn of(actor: &Ident, function: &ImplItemFn, group: usize) -> Result<Self> {
        let Some(FnArg::Receiver(receiver)) = function.sig.inputs.first() else {
            return Err(Error::new_spanned(&function.sig, "a method has a receiver"));
        };
        let name = function.sig.ident.clone();
        check(&name, receiver)?;
        let remote = Remote::of(&named(&function.sig, actor), "an actor's method")?;
        if let Output::Plain(ty) = &remote.output
            && *actor == ty.to_string()
        {
            let text = "an actor's method cannot return the actor: it stays where it is";
            return Err(Error::new_spanned(&function.sig.output, text));
        }
        let docs = function.attrs.iter().filter(|attribute| attribute.path().is_ident("doc"));
        let docs = docs.cloned().collect();
        let (visibility, takes_mut) = (function.vis.clone(), receiver.mutability.is_some());
        Ok(Self { name, remote, visibility, docs, group, takes_mut })
    }

    /// Whether many calls of it may be in flight on few threads.
    pub(crate) fn is_shared_async(&self) -> bool {
        self.remote.is_async && !self.takes_mut
    }

    /// The method of the handle.
    pub(crate) fn face(&self, actor: &Ident) -> TokenStream {
        let Self { name, remote, visibility, docs, .. } = self;
        let (parameters, packed, value) =
            (remote.submit_parameters(), remote.packed(), remote.value());
        let own = self.own(actor);
        quote! {
            #(#docs)*
            #visibility fn #name(&self, #parameters) -> ::rdist::Call<#value> {
                const ID: u64 = ::rdist::__private::function_id(#own);
                self.0.call(ID, <#actor as ::rdist::Actor>::RULES, |cx| {
                    let _ = cx;
                    #packed
                })
            }
        }
    }

    /// The function behind it, and its registration.
    pub(crate) fn registration(&self, actor: &Ident, is_concurrent: bool) -> TokenStream {
        let access = match (is_concurrent && !self.takes_mut, self.remote.is_async) {
            (false, _) => Access::Exclusive,
            (true, false) => Access::Shared,
            (true, true) => Access::Async,
        };
        let run = format_ident!("run_{}", self.name);
        let (body, variant) = match access {
            Access::Exclusive => (self.exclusive(actor, &run), quote!(Exclusive)),
            Access::Shared => (self.shared(actor, &run), quote!(Shared)),
            Access::Async => (self.future(actor, &run), quote!(Async)),
        };
        let (own, group) = (self.own(actor), self.group);
        quote! {
            #body

            ::rdist::__private::inventory::submit! {
                ::rdist::__private::Function {
                    id: ::rdist::__private::function_id(#own),
                    name: #own,
                    body: ::rdist::__private::Body::Method(::rdist::__private::Method {
                        body: ::rdist::__private::MethodBody::#variant(#run),
                        group: #group,
                    }),
                }
            }
        }
    }

    fn exclusive(&self, actor: &Ident, run: &Ident) -> TokenStream {
        let cast = self.cast(actor, &quote!(&mut #actor), &quote!(downcast_mut));
        let text = quote!(&mut (dyn ::core::any::Any + ::core::marker::Send));
        self.direct(actor, run, &text, &cast)
    }

    fn shared(&self, actor: &Ident, run: &Ident) -> TokenStream {
        let cast = self.cast(actor, &quote!(&#actor), &quote!(downcast_ref));
        let text = quote!(&(dyn ::core::any::Any + ::core::marker::Send + ::core::marker::Sync));
        self.direct(actor, run, &text, &cast)
    }

    fn direct(
        &self,
        actor: &Ident,
        run: &Ident,
        given: &TokenStream,
        cast: &TokenStream,
    ) -> TokenStream {
        let (remote, name) = (&self.remote, &self.name);
        let (value, unpack) = (remote.value(), remote.unpack());
        let result = remote.unwrap(remote.invoke(quote!(<#actor>::#name), Some(quote!(actor))));
        quote! {
            #[allow(clippy::let_unit_value, clippy::unit_arg)]
            fn #run(
                actor: #given,
                arguments: &mut ::rdist::__private::Arguments<'_>,
                cx: &::rdist::Context,
            ) -> ::core::result::Result<::rdist::__private::Encoded, ::rdist::__private::Failure> {
                let _ = &arguments;
                #cast
                #unpack
                let value: #value = #result;
                ::rdist::__private::encode(cx, &value)
            }
        }
    }

    fn future(&self, actor: &Ident, run: &Ident) -> TokenStream {
        let (remote, name) = (&self.remote, &self.name);
        let (value, unpack) = (remote.value(), remote.unpack());
        let call = remote.call(quote!(<#actor>::#name), Some(quote!(&*actor)));
        let result = remote.unwrap(quote!(#call.await));
        let cast = self.cast(actor, &quote!(::std::sync::Arc<#actor>), &quote!(downcast));
        let cast = quote! {
            let actor = ::rdist::__private::Downcast(actor);
            #cast
        };
        quote! {
            #[allow(clippy::let_unit_value, clippy::unit_arg)]
            fn #run(
                actor: ::rdist::__private::SharedState,
                arguments: &mut ::rdist::__private::Arguments<'_>,
                cx: &::rdist::Context,
            ) -> ::core::result::Result<
                ::rdist::__private::CallFuture,
                ::rdist::__private::Failure,
            > {
                let _ = &arguments;
                #cast
                #unpack
                let cx = ::core::clone::Clone::clone(cx);
                ::core::result::Result::Ok(::std::boxed::Box::pin(async move {
                    let cx = &cx;
                    let value: #value = #result;
                    ::rdist::__private::encode(cx, &value)
                }))
            }
        }
    }

    /// `let actor: ty = ..`, or a return that says that it is another type.
    fn cast(&self, actor: &Ident, ty: &TokenStream, how: &TokenStream) -> TokenStream {
        let text = format!("{actor}::{}", self.name);
        quote! {
            let actor: #ty = match actor.#how() {
                ::core::option::Option::Some(actor) => actor,
                ::core::option::Option::None => {
                    return ::core::result::Result::Err(::rdist::__private::not_this_actor(#text));
                }
            };
        }
    }

    /// The method's full name, which its id follows from.
    fn own(&self, actor: &Ident) -> TokenStream {
        let text = format!("{actor}::{}", self.name);
        quote!(concat!(module_path!(), "::", #text))
    }
}

fn check(name: &Ident, receiver: &Receiver) -> Result<()> {
    if receiver.reference.is_none() || receiver.colon_token.is_some() {
        let text = "an actor's method takes `&self` or `&mut self`: the actor stays where it is";
        return Err(Error::new_spanned(receiver, text));
    }
    if TAKEN.iter().any(|taken| name == taken) {
        let text = format!("every handle has a `{name}` of its own; use another name");
        return Err(Error::new_spanned(name, text));
    }
    Ok(())
}
