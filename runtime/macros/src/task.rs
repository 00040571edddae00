//! `#[rdist::task]`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Error, FnArg, ItemFn, Result};

use crate::signature::{Context, Remote};

pub(crate) fn expand(mut function: ItemFn) -> Result<TokenStream> {
    if let Some(FnArg::Receiver(receiver)) = function.sig.inputs.first() {
        let text = "a task is a plain function; for methods put #[rdist::actor] on the impl block";
        return Err(Error::new_spanned(receiver, text));
    }
    let remote = Remote::of(&function.sig, "a task")?;
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

    let (parameters, names, packed) = (remote.submit_parameters(), remote.names(), remote.packed());
    let value = remote.value();
    let unpack = remote.unpack();
    let result = remote.unwrap(remote.invoke(quote!(#inner), None));
    let here = run_here(&function, &remote, &inner);
    let own = quote!(concat!(module_path!(), "::", #text));
    Ok(quote! {
        #(#docs)*
        #[allow(non_camel_case_types)]
        #[derive(Debug, Clone, Copy)]
        #visibility struct #name;

        const _: () = {
            #[allow(clippy::unused_async)]
            #function

            const ID: u64 = ::rdist::__private::function_id(#own);

            #[allow(clippy::let_unit_value, clippy::unit_arg)]
            fn run(
                arguments: &mut ::rdist::__private::Arguments<'_>,
                cx: &::rdist::Context,
            ) -> ::core::result::Result<::rdist::__private::Encoded, ::rdist::__private::Failure>
            {
                let _ = &arguments;
                #unpack
                let value: #value = #result;
                ::rdist::__private::encode(cx, &value)
            }

            ::rdist::__private::inventory::submit! {
                ::rdist::__private::Function {
                    id: ID,
                    name: #own,
                    body: ::rdist::__private::Body::Task(run),
                }
            }

            /// How a task is to run; ended by `submit`.
            #[derive(Debug, Clone)]
            #[must_use = "options do nothing until `.submit(..)`"]
            pub struct With {
                options: ::rdist::TaskOptions,
            }

            #[allow(dead_code, clippy::too_many_arguments)]
            impl #name {
                /// Submits the task; the value is there when it has run.
                pub fn submit(self, cx: &::rdist::Context, #parameters)
                    -> ::rdist::ObjectRef<#value>
                {
                    self.with().submit(cx, #names)
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

                /// Submits the task; the value is there when it has run.
                pub fn submit(self, cx: &::rdist::Context, #parameters)
                    -> ::rdist::ObjectRef<#value>
                {
                    ::rdist::__private::submit(cx, ID, self.options, #packed)
                }
            }
        };
    })
}

/// The function itself, to be called in place.
fn run_here(function: &ItemFn, remote: &Remote, inner: &syn::Ident) -> TokenStream {
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
