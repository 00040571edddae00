//! Lets the built programs find libtorch where it was linked from, without `LD_LIBRARY_PATH`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // `torch-sys` publishes the folder (its `links` key is `tch`).
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    let Some(lib) = std::env::var_os("DEP_TCH_LIBTORCH_LIB") else { return };
    // DT_RPATH rather than DT_RUNPATH: it also serves libraries that libtorch loads in turn, and
    // some builds of it carry no path of their own.
    println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.to_string_lossy());
    // Nothing of ours calls into it: unasked, the linker would leave out what has the GPU code.
    if std::path::Path::new(&lib).join("libtorch_cuda.so").exists() {
        println!("cargo:rustc-link-arg=-L{}", lib.to_string_lossy());
        println!("cargo:rustc-link-arg=-Wl,--push-state,--no-as-needed,-ltorch_cuda,--pop-state");
    }
}
