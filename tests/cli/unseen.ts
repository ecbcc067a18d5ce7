import { createOutput } from "../../src/ui/output.ts";
import { createTerminal } from "../../src/ui/terminal.ts";

/** Two secret questions with work between them. */
const { env } = process;
const out = createOutput({ json: false, quiet: false, verbose: false, color: "never", env });
const { signal } = new AbortController();
const { steps } = createTerminal({ out, noInput: false, yes: false, env, signal });

await steps.password("First");
const work = async () => {
  await steps.say("working");
  await Bun.sleep(700);
};
const [, , how] = process.argv;
await (how === "seen" ? work() : steps.unseen(work()));
await steps.say("the work is done");
process.exit(0);
