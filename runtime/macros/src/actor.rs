//! `#[rdist::actor]`.

pub(crate) mod attributes;
mod method;

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{format_ident, quote};
use syn::{Error, FnArg, ImplItem, ImplItemFn, ItemImpl, Result, Signature, Type};

use self::attributes::Attributes;
use self::method::Method;
use crate::signature::Remote;

pub(crate) fn expand(attributes: &Attributes, mut block: ItemImpl) -> Result<TokenStream> {
    let name = actor_name(&block)?;
    let mut constructor = None;
    let mut methods = Vec::new();
    for item in &mut block.items {
        let ImplItem::Fn(function) = item else { continue };
        if let Some(FnArg::Receiver(_)) = function.sig.inputs.first() {
            let group = attributes.group_of(function)?;
            methods.push(Method::of(&name, function, group)?);
        } else if function.sig.ident == "new" {
            constructor = Some(function.clone());
        }
    }
    let Some(constructor) = constructor else {
        let text = "an actor needs `fn new(..) -> Self` (or `-> Result<Self, E>`), which makes it";
        return Err(Error::new_spanned(&block.self_ty, text));
    };
    let class = Class::of(attributes, &methods)?;
    let rules = class.rules();
    let constructor = expand_constructor(&name, &constructor, &class)?;
    let faces = methods.iter().map(|method| method.face(&name));
    let runs = methods.iter().map(|method| method.registration(&name, class.is_concurrent));
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
                const RULES: ::rdist::__private::CallRules = #rules;
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

/// What all actors of a type have in common.
struct Class<'a> {
    attributes: &'a Attributes,
    is_concurrent: bool,
    /// Calls without a group that may be in flight.
    limit: u32,
}

impl<'a> Class<'a> {
    fn of(attributes: &'a Attributes, methods: &[Method]) -> Result<Self> {
        let has_async = methods.iter().any(Method::is_shared_async);
        let is_concurrent = attributes.is_concurrent(has_async);
        if let Some(span) = attributes.checkpoint
            && is_concurrent
        {
            let text = "an actor with checkpoints runs one call at a time: leave out \
                        `max_concurrency` and groups, and let async methods take `&mut self`";
            return Err(Error::new(span, text));
        }
        Ok(Self { attributes, is_concurrent, limit: attributes.limit(has_async) })
    }

    /// How callers deal with calls.
    fn rules(&self) -> TokenStream {
        let out_of_order = self.attributes.out_of_order;
        let exactly_once = self.attributes.checkpoint.is_some();
        let retries = match self.attributes.max_task_retries {
            Some(retries) => quote!(#retries),
            // Nothing is done twice, so that there is no reason to give up before the actor does.
            None if exactly_once => quote!(::core::primitive::u32::MAX),
            None => quote!(0),
        };
        quote!(::rdist::__private::CallRules {
            out_of_order: #out_of_order,
            exactly_once: #exactly_once,
            retries: #retries,
        })
    }

    /// The `Class` of the registry.
    fn registered(&self, name: &syn::Ident) -> TokenStream {
        let (is_concurrent, limit) = (self.is_concurrent, self.limit);
        let groups = self.attributes.groups.iter().map(|(group, limit)| {
            let group = group.to_string();
            quote!((#group, #limit))
        });
        let checkpoint = match self.attributes.checkpoint {
            Some(_) => quote!(::core::option::Option::Some(
                ::rdist::__private::Checkpointing::of::<#name>()
            )),
            None => quote!(::core::option::Option::None),
        };
        quote!(::rdist::__private::Class {
            make,
            is_concurrent: #is_concurrent,
            limit: #limit,
            groups: &[#(#groups),*],
            checkpoint: #checkpoint,
        })
    }
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
fn expand_constructor(
    name: &syn::Ident,
    function: &ImplItemFn,
    class: &Class<'_>,
) -> Result<TokenStream> {
    let remote = Remote::of(&named(&function.sig, name), "an actor's constructor")?;
    let visibility = &function.vis;
    let (parameters, names, packed) = (remote.submit_parameters(), remote.names(), remote.packed());
    let unpack = remote.unpack();
    let made = remote.unwrap(remote.invoke(quote!(<#name>::new), None));
    let text = format!("{name}::new");
    let own = quote!(concat!(module_path!(), "::", #text));
    let registered = class.registered(name);
    let (state, option_methods) = if class.is_concurrent {
        (quote!(shared), quote!(::rdist::__concurrency_option_methods!();))
    } else {
        (quote!(exclusive), quote!())
    };
    let limit = class.limit;
    let is_checkpointed = class.attributes.checkpoint.is_some();
    Ok(quote! {
        const NEW: u64 = ::rdist::__private::function_id(#own);

        fn make(
            arguments: &mut ::rdist::__private::Arguments<'_>,
            cx: &::rdist::Context,
        ) -> ::core::result::Result<::rdist::__private::State, ::rdist::__private::Failure> {
            let _ = (&arguments, cx);
            #unpack
            let actor: #name = #made;
            ::core::result::Result::Ok(::rdist::__private::State::#state(actor))
        }

        static CLASS: ::rdist::__private::Class = #registered;

        ::rdist::__private::inventory::submit! {
            ::rdist::__private::Function {
                id: NEW,
                name: #own,
                body: ::rdist::__private::Body::Actor(&CLASS),
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
            #option_methods

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
                With { options: ::rdist::TaskOptions::of_class(#limit, #is_checkpointed) }
            }
        }
    })
}
