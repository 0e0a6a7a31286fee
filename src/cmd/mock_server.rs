//! `bench mock-server`: a server with exactly known timing, to try clients against.

use std::process::ExitCode;

use crate::mock_server::MockServer;
use crate::mock_server::profile::{FAILURES, Profile};

/// Flags of `bench mock-server`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = profile_help())]
pub struct MockServerArgs {
    /// Port on the loopback address; 0 takes a free one.
    #[arg(long, default_value_t = 8099)]
    port: u16,
    /// Check a profile and print its URL.
    #[arg(long, value_name = "PROFILE", default_value = "")]
    profile: String,
}

fn profile_help() -> String {
    let failures: Vec<_> = FAILURES.iter().map(|(name, _)| *name).collect();
    format!(
        "The first part of a URL's path is the profile: words with commas between them.\n\n  \
         ttft_ms=100 tpot_ms=10 chunk=1     when tokens come, and how many in an event\n  \
         role-first                         an event without a token comes first (chat)\n  \
         reasoning=8 reasoning_field=NAME   the first tokens are reasoning (chat)\n  \
         tools                              tokens are tool calls (chat, Anthropic)\n  \
         usage=end|never|running ids        how the number of tokens is told\n  \
         slot=0                             who answered (llama-server)\n  \
         done_ms=0                          between the last token and the stream's end\n  \
         stall_at=0 stall_ms=0              a pause before a token\n  \
         comment_ms=0                       keep-alive comments before the first token\n  \
         split=0 crlf wide                  pieces of so many bytes; line ends; long characters\n  \
         fail=WORD fail_at=0                {}\n\n\
         Endpoints: /v1/completions /v1/chat/completions /completion (llama-server)\n\
         /api/generate (Ollama) /api/v0/completions /api/v1/chat (LM Studio) /v1/messages\n\
         (Anthropic)",
        failures.join(", ")
    )
}

/// Serves until the process is ended.
pub fn run(args: &MockServerArgs) -> anyhow::Result<ExitCode> {
    let _: Profile = args.profile.parse()?;
    let server = MockServer::start(args.port)?;
    println!("{}", server.url(&args.profile));
    loop {
        std::thread::park();
    }
}
