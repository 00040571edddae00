//! What tasks and methods have in common: checks of a signature, and its parts.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{
    Error, FnArg, GenericArgument, Ident, Pat, PatType, Path, PathArguments, Result, ReturnType,
    Signature, Type, TypeParamBound, TypePath,
};

/// An attribute without arguments.
pub(crate) fn no_arguments(
    arguments: proc_macro::TokenStream,
    name: &str,
    instead: &str,
) -> Result<()> {
    if arguments.is_empty() {
        return Ok(());
    }
    let text = format!("#[rdist::{name}] takes no arguments; options are given by {instead}");
    Err(Error::new_spanned(TokenStream::from(arguments), text))
}

/// A function that others can call.
pub(crate) struct Remote {
    /// Parameters that are arguments.
    pub(crate) arguments: Vec<Argument>,
    /// Whether the first parameter is the context.
    pub(crate) takes_context: Option<Context>,
    /// What it returns.
    pub(crate) output: Output,
    pub(crate) is_async: bool,
}

/// How the context is taken.
#[derive(Clone, Copy)]
pub(crate) enum Context {
    Reference,
    Owned,
}

pub(crate) struct Argument {
    pub(crate) name: Ident,
    pub(crate) ty: Type,
}

pub(crate) enum Output {
    Plain(TokenStream),
    Result(Type),
}

impl Remote {
    /// Checks the signature of a task that yields; `output` is that of an item.
    pub(crate) fn of_stream(signature: &Signature) -> Result<Self> {
        if let Some(asyncness) = &signature.asyncness {
            let text = "a task that yields is no `async fn`; its iterator may use `cx.block_on`";
            return Err(Error::new_spanned(asyncness, text));
        }
        let output = match item_of(&signature.output) {
            Some(item) if is_result(item) => Output::Result(item.clone()),
            Some(item) => Output::Plain(quote!(#item)),
            None => {
                let text = "a task with `stream` returns `impl Iterator<Item = T>`; where T is a \
                            Result, an error ends the stream";
                return Err(Error::new_spanned(signature, text));
            }
        };
        let plain = Signature { output: ReturnType::Default, ..signature.clone() };
        Ok(Self { output, ..Self::of(&plain, "a task")? })
    }

    /// Checks a signature; its receiver, if any, is left out. `what`: "a task" and the like.
    pub(crate) fn of(signature: &Signature, what: &str) -> Result<Self> {
        check_modifiers(signature, what)?;
        let mut takes_context = None;
        let mut arguments = Vec::new();
        let typed = signature.inputs.iter().filter_map(|input| match input {
            FnArg::Typed(typed) => Some(typed),
            FnArg::Receiver(_) => None,
        });
        for (index, typed) in typed.enumerate() {
            match context_of(&typed.ty) {
                Some(context) if index == 0 => takes_context = Some(context),
                Some(_) => {
                    let text = format!("the context of {what} is its first parameter");
                    return Err(Error::new_spanned(&typed.ty, text));
                }
                None => arguments.push(argument(typed, arguments.len(), what)?),
            }
        }
        let output = output_of(&signature.output, what)?;
        let is_async = signature.asyncness.is_some();
        Ok(Self { arguments, takes_context, output, is_async })
    }

    /// The type of the object that a call makes.
    pub(crate) fn value(&self) -> TokenStream {
        match &self.output {
            Output::Plain(ty) => ty.clone(),
            Output::Result(ty) => quote!(<#ty as ::rdist::__private::Fallible>::Value),
        }
    }

    /// `name: impl IntoArgument<T>, ..`
    pub(crate) fn submit_parameters(&self) -> TokenStream {
        let parameters = self.arguments.iter().map(|Argument { name, ty }| {
            quote!(#name: impl ::rdist::IntoArgument<<#ty as ::rdist::Parameter>::Value>)
        });
        quote!(#(#parameters,)*)
    }

    /// `name, ..`
    pub(crate) fn names(&self) -> TokenStream {
        let names = self.arguments.iter().map(|argument| &argument.name);
        quote!(#(#names,)*)
    }

    /// A `Vec<Argument>` of the parameters of `submit_parameters`; `cx` is in scope.
    pub(crate) fn packed(&self) -> TokenStream {
        let names = self.arguments.iter().map(|argument| &argument.name);
        quote!(::std::vec![
            #(::rdist::IntoArgument::into_argument(#names, cx),)*
        ])
    }

    /// Takes the arguments out of `arguments` into variables of their names.
    pub(crate) fn unpack(&self) -> TokenStream {
        let lets = self.arguments.iter().map(|Argument { name, ty }| {
            let text = name.to_string();
            quote!(let #name = arguments.next::<#ty>(#text)?;)
        });
        quote!(#(#lets)*)
    }

    /// Calls `callee` with those variables; an expression of the type that it returns.
    pub(crate) fn invoke(&self, callee: TokenStream, receiver: Option<TokenStream>) -> TokenStream {
        let call = self.call(callee, receiver);
        if self.is_async { quote!(cx.block_on(#call)?) } else { call }
    }

    /// The same without waiting: of an async function, the future.
    pub(crate) fn call(&self, callee: TokenStream, receiver: Option<TokenStream>) -> TokenStream {
        let names = self.arguments.iter().map(|argument| &argument.name);
        let context = self.takes_context.map(|context| match context {
            Context::Reference => quote!(cx,),
            Context::Owned => quote!(::core::clone::Clone::clone(cx),),
        });
        let receiver = receiver.map(|receiver| quote!(#receiver,));
        quote!(#callee(#receiver #context #(#names,)*))
    }

    /// From that expression, a value or a return with its error.
    pub(crate) fn unwrap(&self, call: TokenStream) -> TokenStream {
        match &self.output {
            Output::Plain(_) => call,
            Output::Result(_) => quote! {
                match ::rdist::__private::Fallible::into_result(#call) {
                    ::core::result::Result::Ok(value) => value,
                    ::core::result::Result::Err(error) => {
                        #[allow(unused_imports)]
                        use ::rdist::__private::{FailureOfDisplay as _, FailureOfError as _};
                        return ::core::result::Result::Err(
                            (&::rdist::__private::Thrown(error)).failure()
                        );
                    }
                }
            },
        }
    }
}

fn check_modifiers(signature: &Signature, what: &str) -> Result<()> {
    if !signature.generics.params.is_empty() {
        let text = format!(
            "{what} cannot be generic: other processes find it by name; write one for each type"
        );
        return Err(Error::new_spanned(&signature.generics, text));
    }
    if let Some(unsafety) = &signature.unsafety {
        let text = format!("{what} cannot be unsafe: its submitter cannot keep its promises");
        return Err(Error::new_spanned(unsafety, text));
    }
    if let Some(variadic) = &signature.variadic {
        return Err(Error::new_spanned(
            variadic,
            format!("{what} has a fixed number of parameters"),
        ));
    }
    Ok(())
}

fn argument(typed: &PatType, index: usize, what: &str) -> Result<Argument> {
    if let Type::Reference(reference) = &*typed.ty {
        let text = format!(
            "{what} cannot take a reference: its arguments come from another process. Take the \
             value itself, or `View<T>` to read a large one in place"
        );
        return Err(Error::new_spanned(reference, text));
    }
    if let Type::ImplTrait(ty) = &*typed.ty {
        return Err(Error::new_spanned(ty, format!("{what} cannot be generic: name the type")));
    }
    let name = match &*typed.pat {
        Pat::Ident(pat) if pat.ident != "cx" && pat.ident != "arguments" => pat.ident.clone(),
        // Patterns are kept in the function itself; the faces around it need a name only.
        _ => format_ident!("argument_{}", index),
    };
    Ok(Argument { name, ty: (*typed.ty).clone() })
}

/// Whether a type is the task's own context: `Context` or `&Context`.
fn context_of(ty: &Type) -> Option<Context> {
    let last = |path: &Path| path.segments.last().map(|segment| segment.ident.to_string());
    let is_context = |ty: &Type| match ty {
        Type::Path(TypePath { qself: None, path }) => last(path).as_deref() == Some("Context"),
        _ => false,
    };
    match ty {
        Type::Reference(reference) if is_context(&reference.elem) => Some(Context::Reference),
        ty if is_context(ty) => Some(Context::Owned),
        _ => None,
    }
}

fn is_result(ty: &Type) -> bool {
    match ty {
        Type::Path(TypePath { qself: None, path }) => {
            path.segments.last().is_some_and(|segment| segment.ident == "Result")
        }
        _ => false,
    }
}

/// The `T` of `impl Iterator<Item = T>`, of `Box<dyn Iterator<Item = T>>` and the like.
fn item_of(output: &ReturnType) -> Option<&Type> {
    let ReturnType::Type(_, ty) = output else { return None };
    let bounds = match &**ty {
        Type::ImplTrait(ty) => &ty.bounds,
        Type::Path(TypePath { path, .. }) => match &path.segments.last()?.arguments {
            PathArguments::AngleBracketed(arguments) => match arguments.args.first()? {
                GenericArgument::Type(Type::TraitObject(ty)) => &ty.bounds,
                _ => return None,
            },
            _ => return None,
        },
        _ => return None,
    };
    bounds.iter().find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else { return None };
        let PathArguments::AngleBracketed(arguments) = &bound.path.segments.last()?.arguments
        else {
            return None;
        };
        arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::AssocType(item) if item.ident == "Item" => Some(&item.ty),
            _ => None,
        })
    })
}

fn output_of(output: &ReturnType, what: &str) -> Result<Output> {
    let ty = match output {
        ReturnType::Default => return Ok(Output::Plain(quote!(()))),
        ReturnType::Type(_, ty) => &**ty,
    };
    match ty {
        ty if is_result(ty) => Ok(Output::Result(ty.clone())),
        Type::Reference(_) | Type::ImplTrait(_) => {
            let text = format!("{what} returns an owned value: it travels to other processes");
            Err(Error::new_spanned(ty, text))
        }
        ty => Ok(Output::Plain(quote!(#ty))),
    }
}
