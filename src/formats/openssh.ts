import { Fault } from "../errors.ts";
import { utf8Text } from "./item.ts";

const MAGIC = new TextEncoder().encode("openssh-key-v1\0");
const ARMOUR = /^\s*-----BEGIN OPENSSH PRIVATE KEY-----\r?\n([A-Za-z0-9+/=\r\n]+)-----END OPENSSH PRIVATE KEY-----\s*$/;
/** Room for a key of 8,192 bits and a long comment. */
const MAX_FILE_BYTES = 32_768;

/** A value that is no usable OpenSSH private key. */
export function badSshKey(why: string, hint?: string): Fault {
  const message = "cannot use this value: not an OpenSSH private key";
  return new Fault("bad_input", message, hint === undefined ? { why } : { why, hint });
}

/** Reads the fields of ssh's binary forms (RFC 4251 §5), each in turn. */
export interface SshReader {
  /** A length of four bytes and as many bytes, as a view. @throws Fault bad_input */
  string(): Uint8Array;
  /** Printable ASCII. @throws Fault bad_input */
  ascii(): string;
  /** A number of four bytes. @throws Fault bad_input */
  uint32(): number;
  /** A positive number without its sign byte, in the shortest form. @throws Fault bad_input */
  mpint(): Uint8Array;
  /** What is left. */
  rest(): Uint8Array;
}

/** A reader over bytes, which it does not copy. */
export function sshReader(bytes: Uint8Array): SshReader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const uint32 = (): number => {
    if (at + 4 > bytes.length) throw badSshKey("it is cut short");
    at += 4;
    return view.getUint32(at - 4);
  };
  const string = (): Uint8Array => {
    const length = uint32();
    at += length;
    if (at > bytes.length) throw badSshKey("it is cut short");
    return bytes.subarray(at - length, at);
  };
  return {
    string,
    uint32,
    ascii: () => {
      const text = Buffer.from(string()).toString("latin1");
      if (!/^[ -~]*$/.test(text)) throw badSshKey("a name in it is not ASCII");
      return text;
    },
    mpint: () => {
      const number = string();
      const [first = 0, second = 0] = number;
      if (number.length === 0 || first >= 0x80 || (first === 0 && second < 0x80)) {
        throw badSshKey("a number in it is not positive and in its shortest form");
      }
      return first === 0 ? number.subarray(1) : number;
    },
    rest: () => bytes.subarray(at),
  };
}

/** The parts of a private key file (PROTOCOL.key §1); views of one buffer, which is the caller's to wipe. */
export interface SshContainer {
  readonly bytes: Uint8Array;
  readonly cipher: string;
  readonly kdf: string;
  readonly publicKey: Uint8Array;
  /** Encrypted unless `cipher` is `none`. */
  readonly privateKeys: Uint8Array;
}

/** Opens the armour of a file and takes it apart. @throws Fault bad_input */
export function readSshContainer(file: Uint8Array): SshContainer {
  if (file.length > MAX_FILE_BYTES) throw badSshKey(`it has more than ${MAX_FILE_BYTES} bytes`);
  const [, armoured] = ARMOUR.exec(utf8Text(file) ?? "") ?? [];
  if (armoured === undefined) throw badSshKey("it does not begin with BEGIN OPENSSH PRIVATE KEY");
  let bytes: Uint8Array;
  try {
    bytes = Uint8Array.fromBase64(armoured);
  } catch {
    throw badSshKey("its base64 is damaged");
  }
  try {
    if (Buffer.compare(bytes.subarray(0, MAGIC.length), MAGIC) !== 0) throw badSshKey("it is of another version");
    const reader = sshReader(bytes.subarray(MAGIC.length));
    const cipher = reader.ascii();
    const kdf = reader.ascii();
    reader.string();
    if (reader.uint32() !== 1) throw badSshKey("it does not hold one key");
    const publicKey = reader.string();
    if (publicKey.length < 1 || publicKey.length > 2_048) throw badSshKey("its public key has no usable size");
    const privateKeys = reader.string();
    // what may follow is the tag of an authenticated cipher
    if (cipher === "none" && reader.rest().length > 0) throw badSshKey("something follows its key");
    return { bytes, cipher, kdf, publicKey, privateKeys };
  } catch (error) {
    bytes.fill(0);
    throw error;
  }
}

/** The part of a private key file that shows the public key, as ssh sends it (PROTOCOL.key §1). @throws Fault bad_input */
export function sshPublicKey(file: Uint8Array): Uint8Array {
  const { bytes, publicKey } = readSshContainer(file);
  try {
    return publicKey.slice();
  } finally {
    bytes.fill(0);
  }
}
