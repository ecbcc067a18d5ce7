import { Decrypter, Encrypter } from "age-encryption";
import { concat } from "../crypto/bytes.ts";
import { Fault } from "../errors.ts";
import { AGE_ARMOUR_BYTES, AGE_HEADER_BYTES, addAgeRecipient, ageDearmour, ageStanzas } from "./age.ts";

/** A part of an age file's header: for whom the file's key is wrapped, and the wrapped key (age-encryption.org/v1). */
export interface AgeStanza {
  readonly args: readonly string[];
  readonly body: Uint8Array;
}

/** Gives the next bytes, at most so many; none at the end. */
type Read = (limit: number) => Promise<Uint8Array>;
type Write = (piece: Uint8Array) => void;

const PIECE_BYTES = 65_536;
const ARMOUR = "-----BEGIN AGE ENCRYPTED FILE-----";

function streamOf(read: Read, first: Uint8Array | null = null): ReadableStream<Uint8Array> {
  let next = first;
  return new ReadableStream({
    async pull(controller) {
      const piece = next ?? (await read(PIECE_BYTES));
      next = null;
      if (piece.length === 0) controller.close();
      else controller.enqueue(piece);
    },
  });
}

async function drain(stream: ReadableStream<Uint8Array>, write: Write): Promise<number> {
  let size = 0;
  for await (const piece of stream) {
    write(piece);
    size += piece.length;
  }
  return size;
}

/** Encrypts in the age format, version 1, piece by piece. @returns Bytes written. @throws Fault bad_input for a recipient that is none */
export async function ageSealTo(read: Read, recipients: readonly string[], write: Write): Promise<number> {
  const encrypter = new Encrypter();
  for (const recipient of recipients) addAgeRecipient(encrypter, recipient);
  return drain(await encrypter.encrypt(streamOf(read)), write);
}

/**
 * Decrypts an age file piece by piece. Each piece is authentic when it is written; that none is missing shows at the end.
 *
 * @param unwrap Gives the file's key, 16 bytes, from the stanzas of its header.
 * @returns Bytes written.
 * @throws Fault bad_input for what is no age file; corrupt for one that was changed or is cut off; and what `unwrap` and
 * `read` throw
 */
export async function ageOpenTo(
  read: Read,
  unwrap: (stanzas: readonly AgeStanza[]) => Promise<Uint8Array>,
  write: Write,
): Promise<number> {
  const first = await binaryStart(read);
  ageStanzas(first);
  let failed: unknown = null;
  let unwrapped = false;
  const keep = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      failed = error;
      throw error;
    }
  };
  const decrypter = new Decrypter();
  decrypter.addIdentity({
    unwrapFileKey: async (stanzas) => {
      const key = await keep(unwrap(stanzas.map(({ args, body }) => ({ args, body }))));
      unwrapped = true;
      return key;
    },
  });
  const writing: Write = (piece) => {
    try {
      write(piece);
    } catch (error) {
      failed = error;
      throw error;
    }
  };
  try {
    return await drain(await decrypter.decrypt(streamOf((limit) => keep(read(limit)), first)), writing);
  } catch {
    // the library's own errors are untyped
    if (failed !== null) throw failed;
    if (unwrapped) throw new Fault("corrupt", "this age file was changed, or is cut off", { hint: "fetch it again" });
    throw new Fault("bad_input", "cannot read this age file: its header is damaged", { hint: "fetch it again" });
  }
}

/** As much of the binary form as holds the header; all of it where the file is in text form. */
async function binaryStart(read: Read): Promise<Uint8Array> {
  const first = await read(AGE_HEADER_BYTES);
  if (!new TextDecoder().decode(first.subarray(0, 256)).trimStart().startsWith(ARMOUR)) return first;
  const parts = [first];
  let size = first.length;
  for (;;) {
    const piece = await read(PIECE_BYTES);
    if (piece.length === 0) return ageDearmour(concat(...parts));
    size += piece.length;
    if (size > AGE_ARMOUR_BYTES)
      throw new Fault("too_large", "an age file in text form has at most 32 MiB", { hint: "age -d FILE | age -r …" });
    parts.push(piece);
  }
}
