import { defineCommand } from "../ui/command.ts";
import { listing, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";

const WORKSPACE = { type: "positional", hint: "WORKSPACE", description: "its name or id", ask: "Workspace" } as const;

export const tokenCreate = defineCommand({
  args: {
    workspace: WORKSPACE,
    name: { type: "string", hint: "NAME", ask: "Name of the token", description: "what it is for" },
    expiresIn: { type: "duration", default: 7_776_000_000, description: "how long it is good for, a year at most" },
  },
  data: "{tokenId, token, expiresAt}",
  details:
    "A program reads with it: events, requests, keys, addresses. It can change nothing. Shown once: keep it as a secret.",
  examples: [
    ["keyhold workspace token create treasury --name dashboard --expires-in 30d", "docs/integrators.md shows its use"],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const made = await client.createToken({
        workspace: args.workspace,
        name: args.name ?? "",
        expiresInMs: args.expiresIn,
      });
      return result(made, () => made.token);
    }),
});

export const tokenList = defineCommand({
  list: true,
  args: { workspace: WORKSPACE },
  data: "{items:[{tokenId, name, expiresAt}], next}",
  examples: [["keyhold workspace token list treasury", "who may read"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const items = await client.tokens({ workspace: args.workspace });
      const cells = items.map((one) => [one.tokenId.slice(0, 16), one.name, one.expiresAt]);
      return listing({ items, next: null }, { heads: ["TOKEN", "NAME", "EXPIRES"], cells });
    }),
});

export const tokenRevoke = defineCommand({
  args: {
    workspace: WORKSPACE,
    token: { type: "positional", hint: "ID", description: "its id, or the start of it", ask: "Token" },
  },
  data: "{tokenId}",
  examples: [["keyhold workspace token revoke treasury 9c1e44", "it reads nothing from now on"]],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      await client.revokeToken({ workspace: args.workspace, tokenId: args.token });
      return result({ tokenId: args.token }, () => `revoked ${plain(args.token)}`);
    }),
});
