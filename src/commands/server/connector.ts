import { Fault } from "../../errors.ts";
import { defineCommand } from "../../ui/command.ts";
import { listing, result } from "../../ui/output.ts";
import { plain } from "../../ui/text.ts";
import { DIR } from "./admin.ts";
import { askServing } from "./federation.ts";

const REGISTRY_KEY = /^[0-9a-f]{64}$/;

/** A registry's Ed25519 identity, 32 bytes, as its connector prints it. @throws Fault usage */
function registryOf(text: string): Uint8Array {
  const hex = text.toLowerCase();
  if (REGISTRY_KEY.test(hex)) return Uint8Array.fromHex(hex);
  throw new Fault("usage", "a registry is named by its key of 64 hex digits here", {
    ...(text.startsWith("sha256:") ? { why: "its pin is only a hash of that key" } : {}),
    hint: "keyhold connector init prints the whole command",
  });
}

const ACCOUNT = {
  account: { type: "positional", description: "name of the connector's account", ask: "Account of the connector" },
} as const;
const EXAMPLE_KEY = "5866666666666666666666666666666666666666666666666666666666666666";

export const connectorAllow = defineCommand({
  args: {
    ...ACCOUNT,
    registry: {
      type: "string",
      hint: "KEY",
      required: true,
      description: "Ed25519 key of the registry, 64 hex digits",
      ask: "Key of the registry",
    },
    ...DIR,
  },
  data: "{account, userId, registry, since}",
  details:
    "The account may then bring what owners of that registry's workspaces have signed, with their votes and policies, " +
    "and what the registry decides: nothing else, and no request of its own. Both servers' operators agree to it so.",
  examples: [
    [
      `keyhold server connector allow federated-0d961dd2237186a8c45df9f0b0b94363 --registry ${EXAMPLE_KEY}`,
      "as `keyhold connector init` says it",
    ],
  ],
  run: async (args, ctx) => {
    const registry = registryOf(args.registry);
    const done = await askServing(ctx, args.dir, "connector.allow", { account: args.account, registry });
    const facts = {
      account: done.account,
      userId: done.userId,
      registry: done.registry.toHex(),
      since: new Date(done.addedAtMs).toISOString(),
    };
    return result(facts, () => `${plain(done.account)} may act for the registry ${facts.registry}`);
  },
});

export const connectorList = defineCommand({
  list: true,
  args: DIR,
  data: "{items:[{account, userId, registry, since}], next}",
  examples: [["keyhold server connector list", "who may bring requests of which registry"]],
  run: async (args, ctx) => {
    const { items } = await askServing(ctx, args.dir, "connector.list", {});
    const shown = items.map(({ account, userId, registry, addedAtMs }) => ({
      account,
      userId,
      registry: registry.toHex(),
      since: new Date(addedAtMs).toISOString(),
    }));
    const cells = shown.map((one) => [plain(one.account), one.registry, one.since]);
    return listing({ items: shown, next: null }, { heads: ["ACCOUNT", "REGISTRY", "SINCE"], cells });
  },
});

export const connectorRevoke = defineCommand({
  args: {
    ...ACCOUNT,
    registry: { type: "string", hint: "KEY", description: "of this registry alone; otherwise of all" },
    ...DIR,
  },
  data: "{account, userId, revoked}",
  details:
    "At once, also in the middle of a request. Its requests and keys stay: another account that is allowed for the " +
    "same registry goes on with them.",
  examples: [
    ["keyhold server connector revoke federated-0d961dd2237186a8c45df9f0b0b94363", "it brings nothing any more"],
  ],
  run: async (args, ctx) => {
    const registry = args.registry === null ? null : registryOf(args.registry);
    const done = await askServing(ctx, args.dir, "connector.revoke", { account: args.account, registry });
    return result(done, () => `revoked ${plain(done.account)}`);
  },
});
