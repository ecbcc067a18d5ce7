import { initLocal } from "../client/enrol.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { choosePassword } from "../ui/password.ts";
import { homeOf, kdfOf, surroundings, wantedProfile } from "../ui/session.ts";
import { type Registration, registerWith } from "./register.ts";

/** The flags of the line that `keyhold serve` prints. */
function fromLine(line: string): { server: string; pin: string; invite: string | null } | null {
  const flag = (name: string) => new RegExp(`--${name}[ =](\\S+)`).exec(line)?.[1] ?? null;
  const [server, pin] = [flag("server"), flag("pin")];
  return server === null || pin === null ? null : { server, pin, invite: flag("invite") };
}

async function askServer(ctx: Context): Promise<Registration> {
  const otherwise = {
    needed: "the server",
    fix: "keyhold register --server URL --pin PIN --account NAME",
  };
  const line = await ctx.term.text("Paste the line that `keyhold serve` prints", otherwise, (text) =>
    fromLine(text) === null ? "the line has --server URL and --pin PIN" : null,
  );
  const account = await ctx.term.text("Account name", otherwise);
  const parsed = fromLine(line);
  if (!parsed) throw new Fault("input_needed", "the line names no server and pin");
  return { ...parsed, account, tlsCa: null };
}

export default defineCommand({
  args: { local: { type: "boolean", description: "a vault on this device alone, without any server" } },
  examples: [["keyhold init --local", "make an encrypted vault that needs no server"]],
  run: async (args, ctx) => {
    const fix = {
      needed: "the kind of home",
      fix: "--local, or: keyhold register --server URL --pin PIN --account NAME",
    };
    const kind = args.local
      ? "local"
      : await ctx.term.select(
          "Where shall your secrets live?",
          [
            { value: "local", label: "In a vault on this device alone" },
            {
              value: "server",
              label: "On a keyhold server as well",
              hint: "you need the line that `keyhold serve` prints",
            },
          ],
          fix,
        );
    if (kind === "server") return registerWith(ctx, await askServer(ctx));
    const password = await choosePassword(ctx);
    try {
      const profile = (await wantedProfile(ctx)) ?? "default";
      const making = initLocal(homeOf(ctx), { profile, password, kdf: kdfOf(ctx, null) }, surroundings(ctx));
      const made = await ctx.term.step("Making the vault", making);
      return result(made, () => `the vault is ready (profile ${made.profile})\nNext: keyhold generate NAME`);
    } finally {
      wipe(password);
    }
  },
});
