import { agentSocket, lockAgent } from "../client/agent.ts";
import { changePassword } from "../client/password.ts";
import { wipe } from "../crypto/bytes.ts";
import { asId, type SessionId } from "../ids.ts";
import { defineCommand } from "../ui/command.ts";
import { NEW_PASSWORD_ARGS } from "../ui/flags.ts";
import { result } from "../ui/output.ts";
import { chooseNewPassword, needPassword } from "../ui/password.ts";
import { homeOf, kdfOf, profileOf, surroundings, withClient } from "../ui/session.ts";
import { table } from "../ui/table.ts";

export const accountPassword = defineCommand({
  args: NEW_PASSWORD_ARGS,
  details: "Asks for the old password and the new one; every other session of the account is closed.",
  examples: [["keyhold account password", "change the password of account and vault"]],
  run: async (args, ctx) => {
    const profile = await profileOf(ctx);
    const old = await needPassword(ctx, "Password now");
    try {
      const next = await chooseNewPassword(ctx, args);
      try {
        const home = homeOf(ctx);
        const changing = changePassword(
          home,
          { ...profile, kdf: kdfOf(ctx, profile) },
          { old, next },
          surroundings(ctx),
        );
        const { requestId } = await ctx.term.step("Changing the password", changing);
        await lockAgent(agentSocket(ctx.dirs.runtime, profile.name));
        return result(
          { account: profile.account, changed: true },
          () => "the password was changed; all other sessions are closed",
          { requestId },
        );
      } finally {
        wipe(next);
      }
    } finally {
      wipe(old);
    }
  },
});

export const accountSessions = defineCommand({
  args: { close: { type: "string", hint: "ID", description: "close this session" } },
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
      return result(
        { items, next: null },
        () => table(["SESSION", "OPENED", "LAST USED", "EXPIRES", ""], rows, ctx.out.width),
        { requestId },
      );
    }),
});

export const accountDevices = defineCommand({
  args: {},
  examples: [["keyhold account device list", "the devices of the account"]],
  run: async (_args, ctx) =>
    withClient(ctx, async (client) => {
      // what this device has in its vault may lack a device that was added since
      const { requestId } = await ctx.term.step("Asking", client.sync());
      const { items } = await client.devices();
      const rows = items.map((one) => [one.deviceId, one.name, one.addedAt, one.current ? "this one" : ""]);
      return result({ items, next: null }, () => table(["DEVICE", "NAME", "ADDED", ""], rows, ctx.out.width), {
        requestId,
      });
    }),
});
