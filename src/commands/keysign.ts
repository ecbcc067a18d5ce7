import { createHash } from "node:crypto";
import type { KeyholdClient } from "../client/api.ts";
import { SIGN_MAX_BYTES, schemeOf } from "../client/signing.ts";
import { type EcdsaScheme, hashOfScheme, SIGNATURE_SCHEMES, type SignatureScheme } from "../crypto/schemes.ts";
import { Fault } from "../errors.ts";
import { sshBlobOf } from "../formats/publickey.ts";
import { readSshBlob } from "../formats/sshkey.ts";
import { sshSignature, sshsigFile, sshsigMessage } from "../formats/sshsignature.ts";
import type { SignForm } from "../protocol/federation/kinds.ts";
import { type Context, defineCommand } from "../ui/command.ts";
import { type FileSource, openFileSource } from "../ui/filesource.ts";
import { OUT_FILE_ARGS, type OutFile, outFile, putFile } from "../ui/outfile.ts";
import { type Result, result } from "../ui/output.ts";
import { withClient } from "../ui/session.ts";
import { federatedKeyOf, federatedResult } from "./federated.ts";
import { keyPair } from "./key.ts";
import { transactionBytes } from "./transactionfile.ts";

const PIECE_BYTES = 65_536;

/** A file, or stdin for `-`; the caller closes it. */
export function sourceOf(ctx: Context, path: string): FileSource {
  if (path !== "-") return openFileSource(path);
  ctx.stdin.claim("the file");
  return openFileSource(null);
}

/** The hash of what is left of a file, behind what was read of it already. */
async function hashOf(
  source: FileSource,
  algorithm: "sha256" | "sha384" | "sha512",
  first: Uint8Array = new Uint8Array(0),
): Promise<Uint8Array> {
  const hash = createHash(algorithm).update(first);
  for (;;) {
    const piece = await source.read(PIECE_BYTES);
    if (piece.length === 0) return new Uint8Array(hash.digest());
    hash.update(piece);
  }
}

interface Made {
  readonly signature: Uint8Array;
  readonly scheme: SignatureScheme;
  /** What `--out` gets, where it is not the signature itself. */
  readonly file?: string;
}

/** The public half of a key, and the type that it signs as. */
async function pairOf(client: KeyholdClient, name: string) {
  const got = await client.get({ name, version: null, reveal: false, fresh: false, save: false });
  const { type, publicKey, keyId } = keyPair(got.info);
  const blob = sshBlobOf(type, publicKey);
  return { type, keyId, blob, signs: blob === null ? type : readSshBlob(blob).type };
}

/** Signs a file: one that is small is sent whole, of another its hash. */
async function signed(
  client: KeyholdClient,
  source: FileSource,
  { name, scheme: wanted, hedge }: { name: string; scheme: SignatureScheme | null; hedge: string | null },
) {
  const first = await source.read(SIGN_MAX_BYTES + 1);
  if (first.length <= SIGN_MAX_BYTES) {
    return client.sign({ name, version: null, message: first, scheme: wanted, hedge });
  }
  const { keyId, signs } = await pairOf(client, name);
  const scheme = schemeOf(signs, wanted);
  const algorithm = hashOfScheme(scheme);
  if (algorithm === null) {
    throw new Fault("too_large", `an Ed25519 key signs files of at most ${SIGN_MAX_BYTES / 1_048_576} MiB whole`, {
      hint: "--format ssh signs files of any size",
    });
  }
  const message = await hashOf(source, algorithm, first);
  return client.sign({ name: keyId, version: null, message, scheme, prehashed: true, hedge });
}

async function byKey(
  client: KeyholdClient,
  source: FileSource,
  input: { name: string; scheme: SignatureScheme | null; der: boolean; hedge: string | null },
): Promise<Made> {
  const made = await signed(client, source, input);
  if (!input.der) return made;
  if (!made.scheme.startsWith("ecdsa-")) {
    throw new Fault("usage", `signatures by ${made.scheme} have no DER form`, { hint: "leave --format out" });
  }
  const { ecdsaDer } = await import("../crypto/signature.ts");
  return { scheme: made.scheme, signature: ecdsaDer(made.scheme as EcdsaScheme, made.signature) };
}

/** As `ssh-keygen -Y sign` does it: what is signed is the file's hash, so that its size does not matter. */
async function asSsh(
  client: KeyholdClient,
  source: FileSource,
  input: { name: string; scheme: SignatureScheme | null; namespace: string; hedge: string | null },
): Promise<Made> {
  const { namespace } = input;
  if (namespace === "" || Buffer.byteLength(namespace) > 256)
    throw new Fault("usage", "--namespace has 1 to 256 bytes");
  const { type, keyId, blob, signs } = await pairOf(client, input.name);
  if (blob === null) {
    throw new Fault("bad_input", `ssh does not know keys of type "${type}"`, { hint: "ed25519, p256, p384, rsa, ssh" });
  }
  const scheme = input.scheme ?? (signs === "rsa" ? "rsa-pkcs1-sha512" : null);
  const message = sshsigMessage(namespace, await hashOf(source, "sha512"));
  const made = await client.sign({ name: keyId, version: null, message, scheme, hedge: input.hedge });
  const signature = sshSignature(made.scheme, made.signature);
  return { signature, scheme: made.scheme, file: sshsigFile(blob, namespace, signature) };
}

/** What the servers of a federation sign, at most: the policy sees all of it. */
const FEDERATED_MAX = 64 * 1_024;

/** `250 EUR` as whole smallest units. @throws Fault usage */
export function amountOf({ amount }: { readonly amount: string | null }): { unit: string; value: string } | null {
  if (amount === null) return null;
  const found = /^(0|[1-9][0-9]{0,39}) ([A-Za-z0-9._-]{1,64})$/.exec(amount);
  if (found?.[1] !== undefined && found[2] !== undefined) return { value: found[1], unit: found[2] };
  throw new Fault("usage", "--amount is whole units and their name", { hint: '--amount "25000 EUR-cent"' });
}

/** What is signed: a file's bytes, a digest, or a transaction in a file. */
interface Asked {
  readonly form: SignForm;
  /** Null of a digest. */
  readonly path: string | null;
  readonly digest: Uint8Array | null;
  readonly input: number;
}

interface AskedArgs {
  readonly messageFile: string | null;
  readonly evmFile: string | null;
  readonly psbtFile: string | null;
  readonly digest: string | null;
  readonly input: number | null;
}

/** @throws Fault usage unless exactly one is given */
function askedOf({ messageFile, evmFile, psbtFile, digest, input }: AskedArgs): Asked {
  if ([messageFile, evmFile, psbtFile, digest].filter((one) => one !== null).length !== 1) {
    throw new Fault("usage", "give one of --message-file, --evm-file, --psbt-file and --digest");
  }
  if (input !== null && psbtFile === null) throw new Fault("usage", "--input goes with --psbt-file");
  if (digest !== null) {
    if (!/^[0-9a-fA-F]{64}$/.test(digest)) throw new Fault("usage", "--digest takes 64 hex digits");
    return { form: "digest", path: null, digest: Uint8Array.fromHex(digest), input: 0 };
  }
  if (messageFile !== null) return { form: "message", path: messageFile, digest: null, input: 0 };
  const form = evmFile === null ? "bitcoin" : "evm";
  return { form, path: evmFile ?? psbtFile, digest: null, input: input ?? 0 };
}

interface FederatedSigning {
  readonly amount: string | null;
  readonly hedge: string | null;
  readonly name: string;
  readonly format: "raw" | "der" | "ssh";
  readonly scheme: string | null;
}

/** Has the servers of a federation sign, each after asking its policy. */
async function byFederation(
  client: KeyholdClient,
  source: FileSource | null,
  asked: Asked,
  input: FederatedSigning,
  file: OutFile | null,
): Promise<Result> {
  if (input.format === "ssh" || input.scheme !== null) {
    throw new Fault("usage", "a federation's key signs by its one scheme, raw or der", {
      hint: input.format === "ssh" ? "leave --format out" : "leave --scheme out",
    });
  }
  const { form } = asked;
  if (input.amount !== null && (form === "evm" || form === "bitcoin")) {
    throw new Fault("usage", "of a transaction the amount is what it says itself", { hint: "leave --amount out" });
  }
  const content = asked.digest ?? (await source?.read(FEDERATED_MAX + 1)) ?? new Uint8Array(0);
  const message = form === "evm" || form === "bitcoin" ? transactionBytes(content) : content;
  if (content.length > FEDERATED_MAX) {
    throw new Fault("too_large", "a federation signs messages of at most 64 KiB, which its policies see whole", {
      hint: "sign the file's hash: openssl dgst -sha256 -binary FILE > hash",
    });
  }
  const { input: at } = asked;
  const { name, hedge } = input;
  const made = await client.signFederated({ key: name, message, amount: amountOf(input), form, input: at, hedge });
  const raw = made.signatureHex === null ? null : Uint8Array.fromHex(made.signatureHex);
  const der = raw !== null && input.format === "der" ? await derOf(made.scheme ?? "", raw) : raw;
  if (file !== null && der !== null) putFile(file, der);
  const shown = { ...made, signatureHex: der?.toHex() ?? null };
  return federatedResult(shown, ({ signatureHex }) => (file === null ? (signatureHex ?? "") : ""));
}

/** An ECDSA signature as openssl takes it. @throws Fault usage for one of another scheme */
async function derOf(scheme: string, raw: Uint8Array): Promise<Uint8Array> {
  if (!scheme.startsWith("ecdsa-")) {
    throw new Fault("usage", `signatures by ${scheme} have no DER form`, { hint: "leave --format out" });
  }
  const { ecdsaDer } = await import("../crypto/signature.ts");
  return ecdsaDer((scheme.endsWith("-sha256") ? scheme : `${scheme}-sha256`) as EcdsaScheme, raw);
}

export default defineCommand({
  args: {
    name: { type: "positional", complete: "secret", description: "name of the key", ask: "Name of the key" },
    messageFile: { type: "string", hint: "FILE", description: "what to sign (- is stdin)" },
    evmFile: {
      type: "string",
      hint: "FILE",
      description: "by a federation's key: an unsigned EVM transaction, as bytes or hex digits",
    },
    psbtFile: {
      type: "string",
      hint: "FILE",
      description: "by a federation's key: an input of a PSBT, as bytes, hex digits or base64",
    },
    input: { type: "integer", min: 0, max: 65_535, hint: "N", description: "which input of the PSBT (default: 0)" },
    digest: { type: "string", hint: "HEX", description: "by a federation's key: 32 bytes, signed as they are" },
    scheme: {
      type: "enum",
      options: SIGNATURE_SCHEMES,
      hint: "SCHEME",
      description: "how to sign (default: the key's own, for rsa rsa-pss-sha256)",
    },
    format: {
      type: "enum",
      options: ["raw", "der", "ssh"],
      default: "raw",
      description: "r and s of ECDSA as they are, in DER as openssl takes them, or a file for ssh-keygen -Y verify",
    },
    namespace: {
      type: "string",
      hint: "NAME",
      default: "file",
      description: "what the signature is for, with --format ssh",
    },
    amount: {
      type: "string",
      hint: "TEXT",
      description: "of a federation's key: what it is about, for policies, as whole units and their name",
    },
    hedge: {
      type: "string",
      hint: "NAME",
      complete: "secret",
      description: "of an ECDSA key: secret of type bytes whose randomness is mixed into the signature",
    },
    ...OUT_FILE_ARGS,
    out: { type: "string", hint: "FILE", description: "write the signature to a new file, as bytes (ssh: as text)" },
  },
  data: "{name, scheme, format, signatureHex, out?}",
  details: `The key stays where it is. A file may have any size, but by an Ed25519 key ${SIGN_MAX_BYTES / 1_048_576} MiB, and any size again with
--format ssh. An RSA key signs by rsa-pss-sha256, rsa-pkcs1-sha256 and rsa-pkcs1-sha512; other keys know one scheme.
For the other end \`keyhold key public\` prints the public key. By a key of a federation its servers sign, 64 KiB at
most; exit 9 while that waits for approval, exit 10 where a server was left out. Of a transaction they and their
policies read amount and recipients, and sign its hash, which they compute themselves: r and s, or a BIP-340 signature.
ECDSA signatures of one message are always the same; with --hedge each is another one, as strong even where the hedge
is known. A use that waits for approval is signed without it.`,
  examples: [
    ["keyhold key sign release/key --message-file app.tar --out app.tar.sig", "a signature for openssl, as bytes"],
    ["keyhold key sign release/ec --message-file app.tar --format der --out app.tar.sig", "by an ECDSA key"],
    ["keyhold key sign treasury --psbt-file spend.psbt --input 0", "an input of a Bitcoin transaction"],
    ["keyhold key sign github --message-file app.tar --format ssh --out app.tar.sig", "for ssh-keygen -Y verify"],
  ],
  run: async (args, ctx) => {
    const file = outFile(args);
    const { name, scheme, format, namespace, hedge } = args;
    const asked = askedOf(args);
    const source = asked.path === null ? null : sourceOf(ctx, asked.path);
    try {
      return await withClient(ctx, async (client) => {
        if ((await federatedKeyOf(client, name)) !== null) {
          return byFederation(client, source, asked, { name, format, scheme, amount: args.amount, hedge }, file);
        }
        if (source === null || asked.form !== "message") {
          throw new Fault("usage", "transactions and digests are signed by keys of a federation");
        }
        if (args.amount !== null) throw new Fault("usage", "--amount goes with a key of a federation");
        const made =
          format === "ssh"
            ? await asSsh(client, source, { name, scheme, namespace, hedge })
            : await byKey(client, source, { name, scheme, der: format === "der", hedge });
        const signatureHex = made.signature.toHex();
        if (file !== null) {
          putFile(file, made.file === undefined ? made.signature : new TextEncoder().encode(made.file));
        }
        const data = { name, scheme: made.scheme, format, signatureHex, ...(file && { out: file.path }) };
        return result(data, () => (file === null ? (made.file?.trimEnd() ?? signatureHex) : ""));
      });
    } finally {
      source?.close();
    }
  },
});
