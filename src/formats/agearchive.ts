import { wipe } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { type AgeOpen, ageDearmour, ageIdentities, ageOpen, ageSeal, ageSealChecked, ageStanzas } from "./age.ts";
import type { Asks, ForeignFormat } from "./foreign.ts";
import { FILE_BYTES, unreadable, utf8Text } from "./item.ts";
import { json } from "./json.ts";
import { clearPem } from "./pem.ts";
import { sniffAge, sniffOpenssh, sniffPem } from "./sniff.ts";
import { parseSshPrivate, SSH_KEY_TYPES, type SshKeyType } from "./sshkey.ts";

/** Room for a header and the tags of every 64 KiB. */
const OVERHEAD_BYTES = 256 * 1_024;

/** The native JSON, encrypted in the age format to a passphrase, to X25519 keys or to keys of ssh. */
export const age: ForeignFormat = {
  name: "age",
  kind: "many",
  binary: true,
  encrypted: true,
  types: json.types,
  keeps: json.keeps,
  sniff: sniffAge,
  read: async (source, { asks }) => {
    if (typeof source === "string") throw unreadable("age", "it is a directory");
    const file = ageDearmour(source);
    if (file.length > FILE_BYTES.archive + OVERHEAD_BYTES) throw unreadable("age", "it is too large");
    const plain = await opened(file, asks);
    try {
      if (!json.sniff(plain)) throw unreadable("age", "it opens, but what it holds is no archive of keyhold");
      return json.read(plain, { name: null });
    } finally {
      wipe(plain);
    }
  },
  write: async (items, { recipients, asks }) => {
    const plain = json.write(items);
    try {
      if (recipients.length > 0) {
        return { file: await ageSealChecked(plain, recipients), lost: [], checked: true };
      }
      const passphrase = await passphraseOf(asks);
      return { file: await ageSeal(plain, { passphrase }), lost: [] };
    } finally {
      wipe(plain);
    }
  },
};

async function passphraseOf(asks: Asks): Promise<string> {
  const password = await asks.password();
  try {
    return new TextDecoder().decode(password);
  } finally {
    wipe(password);
  }
}

async function opened(file: Uint8Array, asks: Asks): Promise<Uint8Array> {
  if (ageStanzas(file).some(([type]) => type === "scrypt")) {
    return ageOpen(file, { passphrase: await passphraseOf(asks) });
  }
  const files = await asks.identities();
  const identities: IdentityList = [];
  try {
    for (const content of files) identities.push(...identitiesOf(content));
    return await ageOpen(file, { identities });
  } finally {
    wipe(...files, ...identities.map((one) => (typeof one === "string" ? undefined : one.key)));
  }
}

/** Keys that open an age file. */
export type IdentityList = Extract<AgeOpen, { identities: unknown }>["identities"][number][];

/** The keys in one file: lines of age, or one private key of ssh; keys of ssh are the caller's to wipe. @throws Fault bad_input */
export function identitiesOf(content: Uint8Array): IdentityList {
  if (sniffOpenssh(content)) {
    const { type, key } = parseSshPrivate(content);
    return [{ type, key }];
  }
  if (sniffPem(content)) {
    const [item] = clearPem.read(content, { name: "identity" }).items;
    const type = SSH_KEY_TYPES.find((one): one is SshKeyType => one === item?.type);
    if (item && type) return [{ type, key: item.value }];
    throw new Fault("bad_input", "this key opens no age file", { hint: "use an Ed25519 or RSA key" });
  }
  if (sniffAge(content)) {
    throw new Fault("bad_input", "this identity file is itself encrypted", { hint: "decrypt it first: age -d FILE" });
  }
  return [...ageIdentities(utf8Text(content) ?? "?")];
}
