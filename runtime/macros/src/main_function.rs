//! `#[rdist::main]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Error, FnArg, ItemFn, Result, ReturnType};

pub(crate) fn expand(mut function: ItemFn) -> Result<TokenStream> {
    let signature = &mut function.sig;
    if signature.ident != "main" {
        let text = "#[rdist::main] belongs on `main`; for other functions use #[rdist::task]";
        return Err(Error::new_spanned(&signature.ident, text));
    }
    let argument = match signature.inputs.len() {
        0 => quote!(),
        1 if matches!(signature.inputs.first(), Some(FnArg::Typed(_))) => quote!(cx.clone()),
        _ => {
            let text = "main takes the driver's context alone: `async fn main(cx: Driver)`; its \
                        arguments are in std::env::args()";
            return Err(Error::new_spanned(&signature.inputs, text));
        }
    };
    let returns_value = matches!(signature.output, ReturnType::Type(..));
    let is_async = signature.asyncness.is_some();
    signature.ident = syn::Ident::new("driver", signature.ident.span());
    let call = quote!(driver(#argument));
    let call = if is_async { quote!(::rdist::__private::drive(&cx, #call)?) } else { call };
    let result = if returns_value {
        quote! {
            match ::rdist::__private::Fallible::into_result(#call) {
                ::core::result::Result::Ok(()) => ::core::result::Result::Ok(()),
                ::core::result::Result::Err(error) => {
                    #[allow(unused_imports)]
                    use ::rdist::__private::{FailureOfDisplay as _, FailureOfError as _};
                    ::core::result::Result::Err(
                        (&::rdist::__private::Thrown(error)).into_failure()
                    )
                }
            }
        }
    } else {
        quote!({
            #call;
            ::core::result::Result::Ok(())
        })
    };
    Ok(quote! {
        fn main() -> ::std::process::ExitCode {
            #function

            fn run(
                cx: ::rdist::Driver,
            ) -> ::core::result::Result<(), ::rdist::__private::Failure> {
                let _ = &cx;
                #result
            }

            ::rdist::__private::launch(run)
        }
    })
}
