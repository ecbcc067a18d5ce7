import type { SecretInfo } from "../client/api.ts";
import { Fault } from "../errors.ts";
import { PUBLIC_FORMS, publicKeyText, sshBlobOf } from "../formats/publickey.ts";
import { sshFingerprint } from "../formats/sshkey.ts";
import { defineCommand } from "../ui/command.ts";
import { listing, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { plain } from "../ui/text.ts";

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

export const keyList = defineCommand({
  list: true,
  args: {
    prefix: { type: "positional", required: false, complete: "secret", description: "only names that start with this" },
    fresh: { type: "boolean", description: "insist on the server's answer" },
  },
  data: "{items:[{name, keyId, type, version, publicKeyHex, fingerprint}], next}",
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
        }));
      const cells = keys.map(({ name, type, version, publicKeyHex, fingerprint }) => [
        name,
        type,
        String(version),
        fingerprint ?? publicKeyHex,
      ]);
      const heads = ["NAME", "TYPE", "VERSION", "FINGERPRINT OR PUBLIC KEY"];
      return listing({ items: keys, next: null }, { heads, cells }, { requestId });
    }),
});

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
      const got = await client.get({ name: args.name, version: null, reveal: false, fresh: false, save: false });
      const { name, type, version, publicKey } = keyPair(got.info);
      const form = args.as ?? (type === "ssh" ? "ssh" : "hex");
      const text = await publicKeyText(type, publicKey, form, plain(name));
      const data = { name, type, version, as: form, publicKey: text, publicKeyHex: publicKey.toHex() };
      return result(data, () => text, { requestId: got.requestId });
    }),
});
