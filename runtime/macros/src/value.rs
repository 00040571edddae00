//! `#[rdist::value]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::DeriveInput;

pub(crate) fn expand(input: &DeriveInput) -> TokenStream {
    quote! {
        #[derive(::rdist::Archive, ::rdist::Serialize, ::rdist::Deserialize)]
        #[rkyv(crate = ::rdist::rkyv)]
        #[allow(missing_docs, reason = "the archived form repeats the fields without their docs")]
        #input
    }
}
