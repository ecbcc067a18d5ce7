import { errorTable } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { helpFor } from "../ui/frame.ts";
import { type Result, result } from "../ui/output.ts";

/** Meaning of each exit code (docs/cli.md §1). */
const MEANINGS: Readonly<Record<number, string>> = {
  0: "done (a write: acknowledged by every place it was asked to reach)",
  1: "unexpected failure",
  2: "usage or bad input; input missing and no prompt possible",
  3: "not found",
  4: "not authenticated: wrong password, locked, no session, password needed and none given",
  5: "denied by policy or permission",
  6: "exists already, conflict, ambiguous name",
  7: "server unreachable, TLS or pin refused",
  8: "integrity failure: tampering, rollback, bad proof",
  9: "pending: waits for an approval or for other parties",
  10: "partly done: import with losses, write queued offline, federation degraded",
  11: "timed out",
  12: "rate limited",
  126: "run: the command cannot be executed",
  127: "run: there is no such command",
  130: "interrupted (128+n: ended by signal n)",
};

function exitCodes(): Result {
  const rows = Object.entries(MEANINGS).map(([exit, meaning]) => ({
    exit: Number(exit),
    meaning,
    codes: errorTable()
      .filter((row) => row.exit === Number(exit))
      .map((row) => row.code),
  }));
  return result({ items: rows }, () =>
    rows
      .map(
        ({ exit, meaning, codes }) =>
          `${String(exit).padStart(4)}  ${meaning}${codes.length === 0 ? "" : `\n      ${codes.join(", ")}`}`,
      )
      .join("\n"),
  );
}

export default defineCommand({
  args: { command: { type: "positionals", description: "the command, or exit-codes" } },
  examples: [
    ["keyhold help generate", "explain one command"],
    ["keyhold help exit-codes", "the table of exit codes"],
  ],
  run: async (args, { root }) =>
    args.command.join(" ") === "exit-codes" ? exitCodes() : await helpFor(root, args.command),
});
