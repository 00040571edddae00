//! Well-known models with torchvision's parameter names, so that its state dicts load.

pub(super) mod alexnet;
pub(super) mod densenet;
pub(super) mod inception;
pub(super) mod resnet;
pub(super) mod squeezenet;
pub(super) mod vgg;

#[cfg(test)]
mod tests;
