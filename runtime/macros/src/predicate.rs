//! `#[rdist::predicate]`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Error, FnArg, ItemFn, Result};

pub(crate) fn expand(mut function: ItemFn) -> Result<TokenStream> {
    let signature = &function.sig;
    let is_plain = signature.generics.params.is_empty()
        && signature.asyncness.is_none()
        && signature.unsafety.is_none()
        && matches!(signature.inputs.first(), Some(FnArg::Typed(_)))
        && signature.inputs.len() == 1;
    if !is_plain {
        let text = "a predicate is a plain `fn name(fault: &rdist::Fault<'_>) -> bool`";
        return Err(Error::new_spanned(signature, text));
    }
    let name = function.sig.ident.clone();
    let text = name.to_string();
    let visibility = std::mem::replace(&mut function.vis, syn::Visibility::Inherited);
    let docs: Vec<_> =
        function.attrs.iter().filter(|attribute| attribute.path().is_ident("doc")).collect();
    let docs = quote!(#(#docs)*);
    let inner = format_ident!("{}_predicate", name);
    function.sig.ident = inner.clone();
    let own = quote!(concat!(module_path!(), "::", #text));
    Ok(quote! {
        #docs
        #[allow(non_camel_case_types)]
        #[derive(Debug, Clone, Copy)]
        #visibility struct #name;

        const _: () = {
            #function

            impl ::rdist::ErrorPredicate for #name {
                const ID: u64 = ::rdist::__private::function_id(#own);
            }

            ::rdist::__private::inventory::submit! {
                ::rdist::__private::Function {
                    id: ::rdist::__private::function_id(#own),
                    name: #own,
                    body: ::rdist::__private::Body::Predicate(#inner),
                }
            }
        };
    })
}
