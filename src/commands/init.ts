import { initLocal } from "../client/home.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { choosePassword } from "../ui/password.ts";
import { homeOf, kdfOf, surroundings, wantedProfile } from "../ui/session.ts";

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
    if (kind === "server") {
      throw new Fault("input_needed", "joining a server takes the line that `keyhold serve` prints", {
        hint: "keyhold register --server URL --pin PIN --account NAME",
      });
    }
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
