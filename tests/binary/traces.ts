import { readFileSync, statSync } from "node:fs";

/** All bytes of all files below a directory, by path. */
export function filesBelow(dir: string): { path: string; mode: number; bytes: Buffer }[] {
  return [...new Bun.Glob("**/*").scanSync({ cwd: dir, dot: true, absolute: true })].map((path) => ({
    path,
    mode: statSync(path).mode & 0o777,
    bytes: readFileSync(path),
  }));
}

/** The forms in which text could lie in a file: as it is, in base64 (at each offset) and in hex. */
export function traces(text: string): Buffer[] {
  const raw = Buffer.from(text);
  const encoded = [0, 1, 2].flatMap((offset) => {
    const padded = Buffer.concat([Buffer.alloc(offset), raw]);
    // without the characters that depend on the neighbours
    const inner = (base: "base64" | "base64url") =>
      padded
        .toString(base)
        .replace(/=+$/, "")
        .slice(offset === 0 ? 0 : offset + 1, -1);
    return [inner("base64"), inner("base64url")];
  });
  const utf16 = Buffer.from(text, "utf16le");
  return [
    raw,
    utf16,
    ...[...encoded, raw.toString("hex"), raw.toString("hex").toUpperCase()].map((form) => Buffer.from(form)),
  ];
}
