import { agentSocket, lockAgent } from "../client/agent.ts";
import { type Deleted, deleteAccount } from "../client/closing.ts";
import type { Detached } from "../client/detach.ts";
import { changePassword } from "../client/password.ts";
import type { Profile } from "../client/profile.ts";
import { type Renewed, renewAccount } from "../client/rotate.ts";
import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { asId, type RequestId, type SessionId } from "../ids.ts";
import { defineCommand } from "../ui/command.ts";
import { NEW_PASSWORD_ARGS } from "../ui/flags.ts";
import { listing, result } from "../ui/output.ts";
import { chooseNewPassword, needPassword } from "../ui/password.ts";
import { activeProfile, homeOf, kdfOf, type SessionContext, surroundings, withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";

export const accountPassword = defineCommand({
  args: {
    ...NEW_PASSWORD_ARGS,
    rotateKey: {
      type: "boolean",
      description: "also renew the account's keys, and wrap everything anew (after a leak)",
    },
    keepPassword: { type: "boolean", description: "with --rotate-key: keep the password" },
  },
  data: "{account, changed, rotated, rewrapped?}",
  details:
    "Asks for the old password and the new one; every other session of the account is closed. With --rotate-key other devices take the new keys with their next login.",
  examples: [
    ["keyhold account password", "change the password of account and vault"],
    ["keyhold account password --rotate-key", "after a leak: other keys, too"],
  ],
  run: async (args, ctx) => {
    if (args.keepPassword && !args.rotateKey) {
      throw new Fault("usage", "--keep-password goes with --rotate-key", { hint: "leave it out" });
    }
    const profile = await activeProfile(ctx);
    const old = await needPassword(ctx, "Password now");
    try {
      const next = args.keepPassword ? null : await chooseNewPassword(ctx, args);
      try {
        const { renewed, requestId } = await changed(ctx, profile, old, next, args.rotateKey);
        await lockAgent(agentSocket(ctx.dirs.runtime, profile.name));
        const data = { account: profile.account, changed: next !== null, rotated: renewed !== null };
        const what = next === null ? "the account's keys were renewed" : "the password was changed";
        const keys = renewed !== null && next !== null ? " and the account's keys were renewed" : "";
        return result(
          renewed === null ? data : { ...data, rewrapped: renewed.rewrapped },
          () => `${what}${keys}; all other sessions are closed`,
          { requestId },
        );
      } finally {
        wipe(next ?? undefined);
      }
    } finally {
      wipe(old);
    }
  },
});

async function changed(
  ctx: SessionContext,
  profile: Profile,
  old: Uint8Array,
  next: Uint8Array | null,
  rotate: boolean,
): Promise<{ renewed: Renewed | null; requestId: RequestId }> {
  const [home, of, around] = [homeOf(ctx), { ...profile, kdf: kdfOf(ctx, profile) }, surroundings(ctx)];
  if (!rotate && next !== null) {
    const changing = changePassword(home, of, { old, next }, around);
    return { renewed: null, ...(await ctx.term.step("Changing the password", changing)) };
  }
  const renewing = renewAccount(home, of, old, { next, revoke: null }, around);
  const renewed = await ctx.term.step("Renewing the account's keys", renewing);
  return { renewed, requestId: renewed.requestId };
}

export const accountSessions = defineCommand({
  list: true,
  args: { close: { type: "string", hint: "ID", description: "close this session" } },
  data: "{items:[{sessionId, createdAt, lastUsedAt, expiresAt, current}], next}; with --close {closed}",
  examples: [
    ["keyhold account sessions", "all open sessions"],
    ["keyhold account sessions --close ID", "close one of them"],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      if (args.close !== null) {
        const { closed, requestId } = await client.closeSession({ sessionId: asId<SessionId>(args.close), all: false });
        return result({ closed }, () => "closed", { requestId });
      }
      const { items, requestId } = await ctx.term.step("Asking", client.sessions());
      const rows = items.map((one) => [
        one.sessionId,
        one.createdAt,
        one.lastUsedAt,
        one.expiresAt,
        one.current ? "this one" : "",
      ]);
      const heads = ["SESSION", "OPENED", "LAST USED", "EXPIRES", ""];
      return listing({ items, next: null }, { heads, cells: rows }, { requestId });
    }),
});

export const accountDevices = defineCommand({
  list: true,
  args: {},
  data: "{items:[{deviceId, name, addedAt, current}], next}",
  examples: [["keyhold account device list", "the devices of the account"]],
  run: async (_args, ctx) =>
    withClient(ctx, async (client) => {
      // what this device has in its vault may lack a device that was added since
      const { requestId } = await ctx.term.step("Asking", client.sync());
      const { items } = await client.devices();
      const rows = items.map((one) => [one.deviceId, one.name, one.addedAt, one.current ? "this one" : ""]);
      return listing({ items, next: null }, { heads: ["DEVICE", "NAME", "ADDED", ""], cells: rows }, { requestId });
    }),
});

export const deviceRevoke = defineCommand({
  args: {
    id: { type: "positional", description: "id of the device, or a prefix of it", ask: "Id of the device" },
    ...NEW_PASSWORD_ARGS,
  },
  data: "{deviceId, name, changed, rewrapped}",
  details:
    "Renews the account's keys without that device: what it holds opens nothing that is written afterwards. Whoever may know the password too needs another one: give it with --new-password-file or --new-password-fd.",
  examples: [
    ["keyhold account device revoke 3f2a", "take a lost device off the account"],
    ["keyhold account device revoke 3f2a --new-password-file FILE", "and change the password with it"],
  ],
  run: async (args, ctx) => {
    const profile = await activeProfile(ctx);
    await ctx.term.confirm(
      `Take device ${plain(args.id)} off the account and renew its keys? Your other devices log in again.`,
    );
    const given = args.newPasswordFd !== null || args.newPasswordFile !== null;
    const password = await needPassword(ctx);
    try {
      const next = given ? await chooseNewPassword(ctx, args) : null;
      try {
        const of = { ...profile, kdf: kdfOf(ctx, profile) };
        const revoking = renewAccount(homeOf(ctx), of, password, { next, revoke: args.id }, surroundings(ctx));
        const { revoked, rewrapped, requestId } = await ctx.term.step("Renewing the account's keys", revoking);
        await lockAgent(agentSocket(ctx.dirs.runtime, profile.name));
        const data = { deviceId: revoked?.id ?? null, name: revoked?.name ?? null, changed: next !== null, rewrapped };
        return result(data, () => `${plain(revoked?.name ?? "the device")} was taken off the account`, { requestId });
      } finally {
        wipe(next ?? undefined);
      }
    } finally {
      wipe(password);
    }
  },
});

export const accountDelete = defineCommand({
  args: {},
  data: "{account, userId, kept, dropped, profile}",
  details:
    "Erases account and secrets on the server; the name is free again. This device's vault becomes one without a server: it keeps its own secrets and those of which it has a copy.",
  examples: [
    ["keyhold export --all --to json --out secrets.json", "first, to have everything"],
    ["keyhold account delete", "asks for password and name"],
  ],
  run: async (_args, ctx) => {
    const profile = await activeProfile(ctx);
    const password = await needPassword(ctx);
    try {
      const of = { ...profile, kdf: kdfOf(ctx, profile) };
      const { account } = profile;
      const confirm = async ({ dropped }: Detached): Promise<void> => {
        if (ctx.flags.yes) return;
        const lost = dropped === 0 ? "" : `${dropped} secrets have no copy here and are lost. `;
        const asked = `${lost}Type the account's name to delete it for good`;
        await ctx.term.text(asked, { needed: "the account's name, as a confirmation,", fix: "--yes" }, (text) =>
          text.normalize("NFC") === account ? null : "that is not the account's name",
        );
      };
      const done = await deleteAccount(homeOf(ctx), of, password, surroundings(ctx), confirm);
      await lockAgent(agentSocket(ctx.dirs.runtime, profile.name));
      const { requestId, ...data } = done;
      return result({ ...data, profile: profile.name }, () => deletedLine(done), { requestId });
    } finally {
      wipe(password);
    }
  },
});

function deletedLine({ account, kept, dropped }: Deleted): string {
  const lost = dropped === 0 ? "" : `, ${dropped} are gone`;
  return `${plain(account)} was deleted; this vault keeps ${kept} secrets${lost} (keyhold profile remove erases it)`;
}
