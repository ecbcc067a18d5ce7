import { agentSocket, lockAgent } from "../client/agent.ts";
import { noteBackup } from "../client/backupnote.ts";
import { detachProfile } from "../client/detach.ts";
import { vaultPath } from "../client/home.ts";
import { rekeyLocal } from "../client/password.ts";
import { backupVault, checkVault, restoreVault } from "../client/vaultcare.ts";
import { wipe } from "../crypto/bytes.ts";
import { defineCommand } from "../ui/command.ts";
import { NEW_PASSWORD_ARGS } from "../ui/flags.ts";
import { result } from "../ui/output.ts";
import { chooseNewPassword, needPassword } from "../ui/password.ts";
import { homeOf, kdfOf, profileOf, surroundings } from "../ui/session.ts";
import { plain } from "../ui/text.ts";

export const vaultStatus = defineCommand({
  args: {},
  data: "{profile, path, generation, bytes, memoryKib, passes}",
  examples: [["keyhold vault status", "where the vault lies, and its cost of opening"]],
  run: async (_args, ctx) => {
    const profile = await profileOf(ctx);
    const path = vaultPath(homeOf(ctx), profile);
    const facts = checkVault(path);
    return result({ profile: profile.name, path, ...facts }, () =>
      [
        `path        ${plain(path)}`,
        `generation  ${facts.generation}`,
        `size        ${facts.bytes} bytes`,
        `Argon2id    ${facts.memoryKib / 1_024} MiB, ${facts.passes} passes`,
      ].join("\n"),
    );
  },
});

export const vaultCheck = defineCommand({
  args: {},
  data: "{ok, secrets, path}",
  examples: [["keyhold vault check", "open the vault and verify everything in it"]],
  run: async (_args, ctx) => {
    const profile = await profileOf(ctx);
    const password = await needPassword(ctx);
    try {
      const { openOffline } = await import("../client/home.ts");
      const opening = openOffline(homeOf(ctx), { ...profile, kdf: kdfOf(ctx, profile) }, password, surroundings(ctx));
      const client = await ctx.term.step("Checking", opening);
      const { vault } = await client.status();
      await client.close();
      return result(
        { ok: true, secrets: vault.secrets, path: vault.path },
        () => `the vault is whole: ${vault.secrets} secrets`,
      );
    } finally {
      wipe(password);
    }
  },
});

export const vaultRekey = defineCommand({
  args: NEW_PASSWORD_ARGS,
  data: "{profile, rekeyed}",
  examples: [["keyhold vault rekey", "a new password for a vault without a server"]],
  run: async (args, ctx) => {
    const profile = await profileOf(ctx);
    const old = await needPassword(ctx, "Password now");
    try {
      const next = await chooseNewPassword(ctx, args);
      try {
        const rekeying = rekeyLocal(
          homeOf(ctx),
          { ...profile, kdf: kdfOf(ctx, profile) },
          { old, next },
          surroundings(ctx),
        );
        await ctx.term.step("Changing the password", rekeying);
        await lockAgent(agentSocket(ctx.dirs.runtime, profile.name));
        return result({ profile: profile.name, rekeyed: true }, () => "the vault takes the new password");
      } finally {
        wipe(next);
      }
    } finally {
      wipe(old);
    }
  },
});

export const vaultBackup = defineCommand({
  args: {
    out: {
      type: "string",
      hint: "FILE",
      required: true,
      description: "new file, 0600; encrypted like the vault itself",
      ask: "File to write",
    },
  },
  data: "{out, generation, bytes, memoryKib, passes}",
  examples: [["keyhold vault backup --out vault.bak", "a copy that the password opens"]],
  run: async (args, ctx) => {
    const profile = await profileOf(ctx);
    const facts = backupVault(vaultPath(homeOf(ctx), profile), args.out);
    noteBackup(ctx.dirs.state, profile.name, Date.now());
    return result({ out: args.out, ...facts }, () => `copied generation ${facts.generation} to ${plain(args.out)}`);
  },
});

export const vaultRestore = defineCommand({
  args: { file: { type: "positional", description: "backup to put back", ask: "Backup file" } },
  data: "{generation, bytes, memoryKib, passes}",
  examples: [["keyhold vault restore vault.bak", "put a backup in the vault's place"]],
  run: async (args, ctx) => {
    const profile = await profileOf(ctx);
    await ctx.term.confirm(
      "Replace the vault by this backup? What was written since is lost unless the server has it.",
    );
    await lockAgent(agentSocket(ctx.dirs.runtime, profile.name));
    const password = await needPassword(ctx, "Password of the backup");
    try {
      const restoring = restoreVault(vaultPath(homeOf(ctx), profile), args.file, password, {
        allowTestKdf: kdfOf(ctx, profile) === "test",
        userId: profile.userId,
      });
      const facts = await ctx.term.step("Restoring", restoring);
      return result(facts, () => `restored as generation ${facts.generation}`);
    } finally {
      wipe(password);
    }
  },
});

export const vaultDetach = defineCommand({
  args: {},
  data: "{profile, kept, dropped}",
  details:
    "Makes the vault one without a server, where its account is gone or this device was taken off it: what the vault holds, own secrets and copies, stays readable with the vault's password.",
  examples: [["keyhold vault detach", "keep what lies in the vault, forget the account"]],
  run: async (_args, ctx) => {
    const profile = await profileOf(ctx);
    await ctx.term.confirm("Forget the account on this device? Secrets of which the vault has no copy are not kept.");
    const password = await needPassword(ctx, "Password of the vault");
    try {
      const home = homeOf(ctx);
      const of = { ...profile, kdf: kdfOf(ctx, profile) };
      const files = { profiles: home.profiles, profile: of, vault: vaultPath(home, profile) };
      const { kept, dropped } = await ctx.term.step("Detaching", detachProfile(files, password, surroundings(ctx)));
      await lockAgent(agentSocket(ctx.dirs.runtime, profile.name));
      return result(
        { profile: profile.name, kept, dropped },
        () => `the vault has no server any more: it keeps ${kept} secrets; of ${dropped} it had no copy`,
      );
    } finally {
      wipe(password);
    }
  },
});
