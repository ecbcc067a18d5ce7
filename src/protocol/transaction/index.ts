import { sha256 } from "../../crypto/kdf.ts";
import { Fault } from "../../errors.ts";
import type { FederatedType, SignForm } from "../federation/kinds.ts";
import type { Amount } from "../federation/request.ts";
import { readBitcoin } from "./bitcoin.ts";
import { readEvm } from "./evm.ts";
import { cannotSign, type ReadTransaction, type TransactionFacts } from "./facts.ts";

const DIGEST_BYTES = 32;

/** What is to be signed, as a request says it, and by which key. */
export interface SignInput {
  readonly type: FederatedType;
  /** As a certificate holds it: compressed point, 33 bytes; Ed25519 key, 32 bytes. */
  readonly publicKey: Uint8Array;
  readonly form: SignForm;
  readonly message: Uint8Array;
  /** Input of a `bitcoin` transaction; otherwise 0. */
  readonly input: number;
}

/** What a signature is made over. */
export interface Signable {
  /** The message; or 32 bytes that are signed as they are. */
  readonly bytes: Uint8Array;
  /** True where ECDSA does not hash them again. */
  readonly prehashed: boolean;
}

type Message = Pick<SignInput, "form" | "message" | "input">;

type Key = Pick<SignInput, "type" | "publicKey">;

/** What was read lately, by all that it follows from: each step of a request reads the same transaction again. */
const lately = new Map<string, ReadTransaction>();
const LATELY_MAX = 16;

function read(use: Message, key: Key | null): ReadTransaction | null {
  if (use.form !== "evm" && use.form !== "bitcoin") return parsed(use, key);
  const { form, input, message } = use;
  const name = [form, input, key?.type, key?.publicKey.toHex(), sha256(message).toHex()].join(" ");
  const known = lately.get(name);
  if (known !== undefined) return known;
  try {
    const made = parsed(use, key);
    if (lately.size >= LATELY_MAX) lately.clear();
    if (made !== null) lately.set(name, made);
    return made;
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw cannotSign("its transaction cannot be read");
  }
}

function parsed({ form, message, input }: Message, key: Key | null): ReadTransaction | null {
  if (form !== "bitcoin") {
    if (input !== 0) throw cannotSign("only Bitcoin transactions have inputs");
    if (form !== "evm") return null;
    if (key !== null && key.type !== "secp256k1") throw cannotSign(`no EVM account has a key of type ${key.type}`);
    return readEvm(message);
  }
  if (key === null) return readBitcoin(message, input, null);
  const { type, publicKey } = key;
  if (type !== "secp256k1" && type !== "schnorr") throw cannotSign(`no Bitcoin output has a key of type ${type}`);
  return readBitcoin(message, input, { type, publicKey });
}

function plain({ type, form, message }: SignInput): Signable {
  if (form === "message") return { bytes: message, prehashed: false };
  if (type === "ed25519") throw cannotSign("Ed25519 signs messages, not digests");
  if (message.length !== DIGEST_BYTES) throw cannotSign(`a digest has ${DIGEST_BYTES} bytes`);
  return { bytes: message, prehashed: true };
}

function signs(type: FederatedType): void {
  if (type === "bytes" || type === "ristretto255") throw cannotSign(`keys of type ${type} do not sign`);
}

const signableIn = (use: SignInput, transaction: ReadTransaction | null): Signable =>
  transaction === null ? plain(use) : { bytes: transaction.sighash.slice(), prehashed: true };

/**
 * What is really signed (docs/protocol.md §8.12): the message itself, a digest, or the sighash that is computed here
 * of an unsigned transaction.
 *
 * @throws Fault bad_input with what is wrong
 */
export function signableOf(use: SignInput): Signable {
  signs(use.type);
  return signableIn(use, read(use, use));
}

/**
 * {@link signableOf}, and that an amount which a transaction's requester declares is the one that its bytes say.
 *
 * @throws Fault bad_input
 */
export function checkSignable(use: SignInput & { readonly amount: Amount | null }): Signable {
  signs(use.type);
  const transaction = read(use, use);
  const { amount } = use;
  if (transaction !== null && amount !== null) {
    const said = transaction.facts.amount;
    if (said?.unit !== amount.unit || said.value !== amount.value) {
      const truth = said === null ? "none that can be read" : `${said.value} ${said.unit}`;
      throw cannotSign(`the amount that is declared is not the transaction's: ${truth}`);
    }
  }
  return signableIn(use, transaction);
}

/**
 * What a transaction does; null for a message or a digest, which say nothing.
 *
 * @param key Null where it is not known: then the signed input's own script stands for it.
 * @throws Fault bad_input
 */
export function transactionFacts(use: Message, key: Key | null): TransactionFacts | null {
  return read(use, key)?.facts ?? null;
}
