import { acceptRestore } from "../client/adopt.ts";
import { agentSocket, lockAgent } from "../client/agent.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { type Result, result } from "../ui/output.ts";
import { needPassword } from "../ui/password.ts";
import { homeOf, kdfOf, profileOf, surroundings, withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";

/** Goes on with a restored server, and tells what became of each secret. */
async function adopt(ctx: Context): Promise<Result> {
  const profile = await profileOf(ctx);
  await ctx.term.confirm("Was the server restored from a backup by its operator? What it lost is uploaded again");
  const password = await needPassword(ctx);
  try {
    const adopting = acceptRestore(homeOf(ctx), { ...profile, kdf: kdfOf(ctx, profile) }, password, surroundings(ctx));
    const { requestId, ...data } = await ctx.term.step("Synchronising", adopting.catch(passwordThen));
    await lockAgent(agentSocket(ctx.dirs.runtime, profile.name));
    const list = (label: string, names: readonly string[]) =>
      names.length === 0 ? [] : [`${label}:`, ...names.map((name) => `  ${plain(name)}`)];
    const human = () =>
      [
        `the server went back from revision ${data.knownRevision} to ${data.serverRevision}`,
        ...list("uploaded again", data.uploaded),
        ...list("removed again", data.removed),
        ...list("lost (no copy in this vault; try your other devices)", data.lost),
        "the password of the backup's time lives again: keyhold account password",
      ].join("\n");
    return result(data, human, { requestId, ...(data.lost.length > 0 && { exit: 10 }) });
  } finally {
    wipe(password);
  }
}

/** After a restore the password is that of the backup's time, which nobody would guess from a refusal. */
function passwordThen(error: unknown): never {
  if (!(error instanceof Fault) || error.code !== "login_failed") throw error;
  throw new Fault("login_failed", error.message, {
    hint: "if the password was changed after the backup, give the one before",
  });
}

export default defineCommand({
  args: {
    acceptRestore: {
      type: "boolean",
      description: "go on with a server that was restored from a backup, and give back what it lost",
    },
    copies: { type: "boolean", description: "keep a copy of every value in the vault, for when the server is away" },
  },
  details:
    "With --copies the vault keeps a copy of every value (parts of files aside), so that all of it can be read while the server is away; otherwise it has copies of what was stored from this device, and of what `get --save` kept. " +
    "With --accept-restore it asks, goes on with a server that was restored from a backup, and gives it back what it lost. What waited in the vault while the server was away goes there first; every command that reaches the server does that.",
  data: "{revision, changed, sent, conflicts}, with --copies copies: {kept, left}; with --accept-restore {serverRevision, knownRevision, uploaded, removed, lost}, exit 10 if something is lost",
  examples: [
    ["keyhold sync", "bring the vault up to the server's state"],
    ["keyhold sync --copies", "everything can be read while the server is away"],
    ["keyhold sync --accept-restore", "after the operator restored a backup"],
  ],
  run: async (args, ctx) => {
    if (args.acceptRestore) return adopt(ctx);
    return withClient(ctx, async (client) => {
      const { requestId, ...synced } = await ctx.term.step("Synchronising", client.sync());
      const { revision, changed, sent, conflicts } = synced;
      const copies = args.copies ? await ctx.term.step("Copying", client.keepCopies()) : null;
      const data = copies === null ? synced : { ...synced, copies: { kept: copies.kept, left: copies.left } };
      const copied =
        copies === null ? "" : `, ${copies.kept} copied${copies.left > 0 ? `, no room for ${copies.left}` : ""}`;
      const sending = sent > 0 ? `, ${sent} sent` : "";
      const left = conflicts > 0 ? `\n${conflicts} ${conflicts === 1 ? "conflict" : "conflicts"}: keyhold status` : "";
      return result(data, () => `revision ${revision}, ${changed} changed${sending}${copied}${left}`, { requestId });
    });
  },
});
