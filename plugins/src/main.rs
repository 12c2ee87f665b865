//! `weft-cni`: acts as the CNI plugin it is called by.

fn main() -> std::process::ExitCode {
    plugins::main()
}
