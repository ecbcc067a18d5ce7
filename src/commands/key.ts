import type { KeyholdClient, SecretInfo } from "../client/api.ts";
import type { FederatedKeyInfo } from "../client/federationapi.ts";
import { Fault } from "../errors.ts";
import { PUBLIC_FORMS, publicKeyText, sshBlobOf } from "../formats/publickey.ts";
import { sshFingerprint } from "../formats/sshkey.ts";
import { defineCommand } from "../ui/command.ts";
import { listing, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";
import { federatedKeyOf } from "./federated.ts";
import { keyOfWorkspace } from "./keyringshown.ts";

/** What ssh shows of a key; null for one that it has no name for, or cannot read. */
function fingerprintOf({ type, publicKey }: SecretInfo): string | null {
  try {
    const blob = publicKey && sshBlobOf(type, publicKey);
    return blob && sshFingerprint(blob);
  } catch (error) {
    if (error instanceof Fault) return null;
    throw error;
  }
}

/** A key pair with its public half. @throws Fault bad_input for a secret that is none */
export function keyPair(info: SecretInfo): SecretInfo & { readonly publicKey: Uint8Array } {
  const { publicKey } = info;
  if (publicKey !== null) return { ...info, publicKey };
  throw new Fault("bad_input", `"${info.name}" is no key pair: its type is ${info.type}`, { hint: "keyhold key list" });
}

/** The public half of a key, one of a federation or of this account. @throws Fault not_found, bad_input */
export async function publicKeyOf(
  client: KeyholdClient,
  name: string,
): Promise<{ type: string; publicKey: Uint8Array; federated: boolean }> {
  const federated = await federatedKeyOf(client, name);
  if (federated) return { ...federatedPublic(federated), federated: true };
  const ofWorkspace = await keyOfWorkspace(client, name);
  if (ofWorkspace) return { ...federatedPublic(ofWorkspace), federated: true };
  const got = await client.get({ name, version: null, reveal: false, fresh: false, save: false });
  const { type, publicKey } = keyPair(got.info);
  return { type, publicKey, federated: false };
}

const federatedPublic = ({ type, publicKeyHex }: Pick<FederatedKeyInfo, "type" | "publicKeyHex">) => ({
  type,
  publicKey: Uint8Array.fromHex(publicKeyHex),
});

/** A federation's key as a row among the others. */
const federatedRow = (key: FederatedKeyInfo) => ({
  name: key.name ?? key.keyId.slice(0, 16),
  keyId: key.keyId,
  type: key.type,
  version: key.generation,
  publicKeyHex: key.publicKeyHex,
  fingerprint: null,
  federation: key.federation,
  custody: key.shown,
});

export const keyList = defineCommand({
  list: true,
  args: {
    prefix: { type: "positional", required: false, complete: "secret", description: "only names that start with this" },
    fresh: { type: "boolean", description: "insist on the server's answer" },
  },
  data: "{items:[{name, keyId, type, version, publicKeyHex, fingerprint, federation?, custody?}], next}",
  examples: [
    ["keyhold key list", "every key pair, with its public half"],
    ["keyhold key list deploy/ --json", "those below deploy/, for a program"],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const { items, requestId } = await client.list({
        prefix: args.prefix,
        search: null,
        tag: null,
        fresh: args.fresh,
      });
      const keys = items
        .filter(({ publicKey }) => publicKey !== null)
        .map((info) => ({
          name: info.name,
          keyId: info.keyId,
          type: info.type,
          version: info.version,
          publicKeyHex: info.publicKey?.toHex() ?? "",
          fingerprint: fingerprintOf(info),
          ...(info.custody === undefined ? {} : { custody: info.custody }),
        }));
      const { prefix } = args;
      const federated = (await client.federatedKeys())
        .map(federatedRow)
        .filter(({ name }) => prefix === null || name.startsWith(prefix));
      const all = [...keys, ...federated];
      const cells = all.map(({ name, type, version, publicKeyHex, fingerprint }) => [
        name,
        type,
        String(version),
        fingerprint ?? publicKeyHex,
      ]);
      const heads = ["NAME", "TYPE", "VERSION", "FINGERPRINT OR PUBLIC KEY"];
      return listing({ items: all, next: null }, { heads, cells }, { requestId });
    }),
});

/** A federation's public key in a form that its type has. @throws Fault bad_input */
async function federatedText(key: FederatedKeyInfo, as: (typeof PUBLIC_FORMS)[number] | null) {
  const { type, publicKeyHex } = key;
  const form = as ?? "hex";
  const known = type === "ed25519" || type === "secp256k1" || type === "p256";
  if (form !== "hex" && !known) {
    throw new Fault("bad_input", `a public key of type ${type} is written as hex only`, { hint: "--as hex" });
  }
  const { publicKey } = federatedPublic(key);
  const text = known ? await publicKeyText(type, publicKey, form, plain(key.name ?? "")) : publicKeyHex;
  const data = { name: key.name, type, version: key.generation, as: form, publicKey: text, publicKeyHex };
  return result(data, () => text);
}

export const keyPublic = defineCommand({
  args: {
    name: { type: "positional", complete: "secret", description: "name of the key", ask: "Name of the key" },
    as: {
      type: "enum",
      options: PUBLIC_FORMS,
      description: "hex (default), pem (SPKI), jwk, ssh (default for type ssh), age (recipient)",
    },
  },
  data: "{name, type, version, as, publicKey, publicKeyHex}",
  examples: [
    ["keyhold key public deploy/key --as pem", "for openssl"],
    ["keyhold key public github --as ssh", "a line for authorized_keys"],
    ["keyhold key public backup/box --as age", "to whom others encrypt"],
  ],
  run: async (args, ctx) =>
    withClient(ctx, async (client) => {
      const federated = await federatedKeyOf(client, args.name);
      if (federated) return federatedText(federated, args.as);
      const got = await client.get({ name: args.name, version: null, reveal: false, fresh: false, save: false });
      const { name, type, version, publicKey } = keyPair(got.info);
      const form = args.as ?? (type === "ssh" ? "ssh" : "hex");
      const text = await publicKeyText(type, publicKey, form, plain(name));
      const data = { name, type, version, as: form, publicKey: text, publicKeyHex: publicKey.toHex() };
      return result(data, () => text, { requestId: got.requestId });
    }),
});
