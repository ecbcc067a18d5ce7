import { Fault } from "../errors.ts";
import {
  ADDRESS_KINDS,
  ADDRESS_RULES,
  type AddressInput,
  type AddressKind,
  addressOf,
  NETWORKS,
} from "../formats/address.ts";
import { defineCommand } from "../ui/command.ts";
import { result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { publicKeyOf } from "./key.ts";

const HEX = /^([0-9a-fA-F]{2}){32,65}$/;

/** A public key as it was typed. @throws Fault usage */
function keyBytes(flag: string, text: string): Uint8Array {
  if (HEX.test(text)) return Uint8Array.fromHex(text.toLowerCase());
  throw new Fault("usage", `--${flag} takes a public key in hex digits`);
}

/** Refuses a key whose curve such an address is not of: points of two curves look alike. @throws Fault bad_input */
function mustFit(as: AddressKind, type: string): void {
  const { type: wanted } = ADDRESS_RULES[as];
  // an ordinary key of the curve is the internal key of a taproot output
  if (type === wanted || (as === "btc-p2tr" && type === "secp256k1")) return;
  throw new Fault("bad_input", `cannot make an address: ${as} wants a key of type ${wanted}, and this one is ${type}`, {
    hint: `keyhold key generate NAME --type ${wanted}`,
  });
}

export default defineCommand({
  args: {
    name: { type: "positional", required: false, complete: "secret", description: "name or id of a key" },
    as: { type: "enum", options: ADDRESS_KINDS, required: true, description: "which kind of address" },
    network: { type: "enum", options: NETWORKS, description: "which network (default: mainnet)" },
    prefix: { type: "string", hint: "TEXT", description: "of --as cosmos: the chain's prefix (default: cosmos)" },
    publicKey: {
      type: "string",
      hint: "HEX",
      description: "a public key instead of a name; of btc-p2tr the internal key, which is tweaked here",
    },
    outputKey: { type: "string", hint: "HEX", description: "of btc-p2tr the output key, which is never tweaked" },
  },
  data: "{address, as, network, publicKeyHex}",
  details: `Works offline. A schnorr key of a federation is an output key: its servers have tweaked it already, and to tweak it
again would lock the money for good.`,
  examples: [
    ["keyhold key address treasury --as btc-p2tr", "of a key that a federation made"],
    [
      "keyhold key address --as evm --public-key 03ca27ea7b0641497b19a723e3b92590801c7e79b114253fc1e99df1fd9730526b",
      "of any public key, offline",
    ],
    ["keyhold key address 77aa01c2e4 --as evm", "of a key of a workspace, by the start of its id"],
    ["keyhold key address wallet --as cosmos --prefix osmo", "with another chain's prefix"],
  ],
  run: async (args, ctx) => {
    const given = [args.name, args.publicKey, args.outputKey].filter((one) => one !== null);
    if (given.length !== 1) {
      throw new Fault("usage", "give one of a name, --public-key and --output-key", { hint: "keyhold key list" });
    }
    const about = { as: args.as, network: args.network, prefix: args.prefix };
    const shown = (key: Uint8Array, input: AddressInput) => {
      const address = addressOf(input);
      const network = args.network ?? "mainnet";
      return result({ address, as: args.as, network, publicKeyHex: key.toHex() }, () => address);
    };
    if (args.outputKey !== null) {
      const outputKey = keyBytes("output-key", args.outputKey);
      return shown(outputKey, { ...about, outputKey });
    }
    if (args.publicKey !== null) {
      const publicKey = keyBytes("public-key", args.publicKey);
      return shown(publicKey, args.as === "btc-p2tr" ? { ...about, internalKey: publicKey } : { ...about, publicKey });
    }
    return withClient(ctx, async (client) => {
      const { type, publicKey, federated } = await publicKeyOf(client, args.name ?? "");
      mustFit(args.as, type);
      const tweaked = federated && type === "schnorr";
      if (args.as !== "btc-p2tr") return shown(publicKey, { ...about, publicKey });
      return shown(publicKey, tweaked ? { ...about, outputKey: publicKey } : { ...about, internalKey: publicKey });
    });
  },
});
