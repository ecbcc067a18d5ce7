import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { defineCommand } from "../ui/command.ts";
import { writeNewFile } from "../ui/outfile.ts";
import { listing, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { OTP_KEY } from "./otpshown.ts";

export const otpTokenCreate = defineCommand({
  args: {
    key: { ...OTP_KEY, hint: "NAME" },
    name: { type: "string", hint: "NAME", ask: "Name of the relying service", description: "which service it is for" },
    expiresIn: { type: "duration", default: 7_776_000_000, description: "how long it is good for, a year at most" },
    out: { type: "string", hint: "FILE", description: "write it to a new file, 0600, instead" },
  },
  data: "{tokenId, token, expiresAt}; with --out {tokenId, expiresAt, out}",
  details:
    "A relying service verifies codes of this key with it, and learns yes or no alone. Shown once: keep it as a secret.",
  examples: [
    [
      "keyhold otp token create door-code --name door --out door.token",
      "for: keyhold otp verify --token-file door.token",
    ],
  ],
  run: async ({ key, name, expiresIn, out }, ctx) =>
    withClient(ctx, async (client) => {
      const untilMs = Date.now() + expiresIn;
      const { tokenId, token } = await client.otpTokenCreate({ key, name, untilMs });
      const expiresAt = new Date(untilMs).toISOString();
      if (out === null) return result({ tokenId, token, expiresAt }, () => token, { bare: true });
      const bytes = new TextEncoder().encode(`${token}\n`);
      try {
        writeNewFile(out, bytes);
      } finally {
        wipe(bytes);
      }
      return result({ tokenId, expiresAt, out }, () => `the token is in ${plain(out)}, good until ${expiresAt}`);
    }),
});

export const otpTokenList = defineCommand({
  list: true,
  args: { key: { ...OTP_KEY, hint: "NAME" } },
  data: "{items:[{tokenId, name, expiresAt}], next}",
  examples: [["keyhold otp token list door-code", "who may verify its codes"]],
  run: async ({ key }, ctx) =>
    withClient(ctx, async (client) => {
      const items = await client.otpTokens({ key });
      const cells = items.map((one) => [one.tokenId.slice(0, 16), one.name, one.expiresAt]);
      return listing({ items, next: null }, { heads: ["TOKEN", "NAME", "EXPIRES"], cells });
    }),
});

export const otpTokenRevoke = defineCommand({
  args: {
    key: { ...OTP_KEY, hint: "NAME" },
    token: { type: "positional", hint: "ID", description: "its id, or the start of it", ask: "Token" },
  },
  data: "{tokenId}",
  examples: [["keyhold otp token revoke door-code 9c1e44", "it verifies nothing from now on"]],
  run: async ({ key, token }, ctx) =>
    withClient(ctx, async (client) => {
      const [one, another] = (await client.otpTokens({ key })).filter(({ tokenId }) => tokenId.startsWith(token));
      if (!one)
        throw new Fault("not_found", `no token begins with "${token}"`, { hint: "keyhold otp token list NAME" });
      if (another) throw new Fault("ambiguous", `more than one token begins with "${token}"`);
      await ctx.term.confirm(`Revoke the token of ${plain(one.name)}?`);
      await client.otpTokenRevoke({ key, tokenId: one.tokenId });
      return result({ tokenId: one.tokenId }, () => `revoked ${plain(one.name)}`);
    }),
});
