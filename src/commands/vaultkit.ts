import { agentSocket, lockAgent } from "../client/agent.ts";
import { readKit } from "../client/kit.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { runKit } from "../ui/kits.ts";
import { result } from "../ui/output.ts";
import { choosePassword, needPassword } from "../ui/password.ts";
import { homeOf, kdfOf, profileOf, surroundings } from "../ui/session.ts";
import { KIT_SOURCE_ARGS, kitTextOf } from "./recovery.ts";

export const vaultRecoveryKit = defineCommand({
  args: {
    out: { type: "string", hint: "FILE", description: "write the kit to a new file, 0600, and do not show it" },
  },
  details:
    "Shows 24 words that give a vault without a server a new password when the old one is lost. They open the vault's " +
    "file and its copies from then on; a kit made before opens nothing that is written from then on. At a terminal two " +
    "of the words confirm it; --yes says that it is kept.",
  data: "{profile, vaultId, replaced, confirmed, words?|out?}",
  examples: [
    ["keyhold vault recovery-kit", "show the kit, to write it down"],
    ["keyhold vault recovery-kit --out kit.txt", "as a file, to print it"],
  ],
  run: async (args, ctx) => {
    const profile = await profileOf(ctx);
    if (profile.server) {
      throw new Fault("bad_input", "this vault belongs to an account, which has a recovery kit of its own", {
        hint: "keyhold account recovery-kit",
      });
    }
    const password = await needPassword(ctx);
    try {
      return await runKit(ctx, profile, password, args.out);
    } finally {
      wipe(password);
    }
  },
});

export const vaultRecover = defineCommand({
  args: KIT_SOURCE_ARGS,
  details:
    "Gives a vault without a server a new password (--password-file and so on, or asked for). The kit stays in force. " +
    "To recover a copy of the vault, put it in the vault's place first: keyhold vault status says where.",
  data: "{profile, recovered}",
  examples: [["keyhold vault recover --kit-file kit.txt", "with the kit's file, or a file of its 24 words"]],
  run: async (args, ctx) => {
    const profile = await profileOf(ctx);
    const { checkVaultKit, recoverVault } = await import("../client/vaultkit.ts");
    const kit = readKit(await kitTextOf(ctx, args));
    const of = { ...profile, kdf: kdfOf(ctx, profile) };
    checkVaultKit(homeOf(ctx), of, kit);
    const password = await choosePassword(ctx, "New password", [profile.name]);
    try {
      await ctx.term.step("Recovering", recoverVault(homeOf(ctx), of, kit, password, surroundings(ctx)));
      await lockAgent(agentSocket(ctx.dirs.runtime, profile.name));
      return result(
        { profile: profile.name, recovered: true },
        () => "the vault takes the new password\nNext: keyhold vault recovery-kit, if others have seen this one",
      );
    } finally {
      wipe(password);
    }
  },
});
