import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, deflateSync } from "node:zlib";
import { encode } from "fast-png";
import { PNG_LIMITS, readQrPng } from "../../src/formats/qrimage.ts";
import { qrLines, qrPng } from "../../src/ui/qrcode.ts";
import { testNeeding } from "../support/skip.ts";

const dir = mkdtempSync(join(tmpdir(), "keyhold-qr-"));
afterAll(() => rmSync(dir, { recursive: true, force: true }));
const URI = "otpauth://totp/ACME%20Co:john@example.com?secret=HXDMVJECJJWSRB3HWIZR4IFUGFTMXBOZ&issuer=ACME%20Co";
const refusal = expect.objectContaining({ name: "Fault", code: "bad_input" });

function chunk(kind: string, data: Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(kind), data]);
  const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  sum.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, sum]);
}
function png(width: number, height: number, idat: Uint8Array, more: Buffer[] = []): Buffer {
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width);
  head.writeUInt32BE(height, 4);
  head.set([8, 0, 0, 0, 0], 8);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([signature, chunk("IHDR", head), ...more, chunk("IDAT", idat), chunk("IEND", Buffer.alloc(0))]);
}
/** A code as grey pixels, 5 to a module. */
async function pixels(): Promise<{ size: number; dark: (x: number, y: number) => boolean }> {
  const { encodeQR } = await import("qr");
  const modules = encodeQR(URI, "raw", { border: 4 });
  return { size: modules.length * 5, dark: (x, y) => modules[Math.floor(y / 5)]?.[Math.floor(x / 5)] ?? false };
}

describe("a QR code in a PNG", () => {
  test("that keyhold wrote is read back", async () => {
    expect(await readQrPng(await qrPng(URI))).toBe(URI);
  });

  for (const [name, channels, depth] of [
    ["grey", 1, 8],
    ["grey with opacity", 2, 8],
    ["colour", 3, 8],
    ["colour with opacity", 4, 8],
    ["grey of 16 bits", 1, 16],
    ["colour of 16 bits", 3, 16],
  ] as const) {
    test(`in ${name} is read`, async () => {
      const { size, dark } = await pixels();
      const most = depth === 16 ? 65_535 : 255;
      const data = depth === 16 ? new Uint16Array(size * size * channels) : new Uint8Array(size * size * channels);
      for (let i = 0; i < size * size; i++) {
        const value = dark(i % size, Math.floor(i / size)) ? 0 : most;
        for (let c = 0; c < channels; c++)
          data[i * channels + c] = channels % 2 === 0 && c === channels - 1 ? most : value;
      }
      expect(await readQrPng(encode({ width: size, height: size, data, channels, depth }))).toBe(URI);
    });
  }

  testNeeding("qrencode", "that qrencode drew (one bit a pixel) is read", async () => {
    const file = join(dir, "qrencode.png");
    expect(Bun.spawnSync(["qrencode", "-o", file, URI]).exitCode).toBe(0);
    expect(await readQrPng(readFileSync(file))).toBe(URI);
  });

  testNeeding("zbarimg", "that keyhold wrote is read by another reader", async () => {
    const file = join(dir, "keyhold.png");
    writeFileSync(file, await qrPng(URI));
    expect(Bun.spawnSync(["zbarimg", "--quiet", "--raw", file]).stdout.toString().trim()).toBe(URI);
  });
});

describe("what is no such picture is refused:", () => {
  const grey = deflateSync(Buffer.alloc(101 * 100, 128));
  const cases: [string, () => Promise<Uint8Array> | Uint8Array][] = [
    ["nothing", () => new Uint8Array(0)],
    ["text", () => new TextEncoder().encode(URI)],
    ["the signature alone", () => png(1, 1, grey).subarray(0, 8)],
    ["a picture without a code", () => png(100, 100, grey)],
    ["no pixels", () => png(0, 100, grey)],
    ["more pixels than are read", () => png(100_000, 100_000, grey)],
    [
      "a picture that unpacks to far more than it says",
      () => png(10, 10, deflateSync(Buffer.alloc(64 * 1_024 * 1_024))),
    ],
    ["two heads", () => png(100, 100, grey, [chunk("IHDR", Buffer.alloc(13))])],
    ["data that is no stream", () => png(100, 100, Buffer.from("not packed"))],
    ["a file over the limit", () => Buffer.concat([png(1, 1, grey), Buffer.alloc(PNG_LIMITS.fileBytes)])],
    [
      "a chunk longer than the file",
      () => {
        const file = png(100, 100, grey);
        file.writeUInt32BE(0xffff_fff0, 33);
        return file;
      },
    ],
  ];
  for (const [name, make] of cases) {
    test(name, async () => {
      const outcome = await readQrPng(await make()).catch((error: unknown) => error);
      expect(outcome).toEqual(refusal);
    });
  }

  test("a code that is cut short anywhere", async () => {
    const whole = await qrPng(URI);
    for (let at = 0; at < whole.length; at += 97) {
      const outcome = await readQrPng(whole.subarray(0, at)).catch((error: unknown) => error);
      expect(outcome).toMatchObject({ code: "bad_input" });
    }
  });

  test("packed side chunks are never unpacked", async () => {
    const bomb = chunk("zTXt", Buffer.concat([Buffer.from("a\0\0"), deflateSync(Buffer.alloc(512 * 1_024 * 1_024))]));
    const before = process.memoryUsage().rss;
    const outcome = await readQrPng(png(100, 100, grey, [bomb])).catch((error: unknown) => error);
    expect(outcome).toMatchObject({ code: "bad_input" });
    expect(process.memoryUsage().rss - before).toBeLessThan(256 * 1_024 * 1_024);
  }, 30_000);
});

describe("a QR code in the terminal", () => {
  test("shows every module, two rows a line, and the other way round on demand", async () => {
    const { encodeQR } = await import("qr");
    const modules = encodeQR(URI, "raw", { ecc: "low", border: 4 });
    for (const invert of [false, true]) {
      const lines = (await qrLines(URI, { width: null, invert })).split("\n");
      const drawn = lines.flatMap((line) => [
        [...line].map((cell) => cell === "█" || cell === "▀"),
        [...line].map((cell) => cell === "█" || cell === "▄"),
      ]);
      for (const [y, row] of modules.entries()) expect(drawn[y]).toEqual(row.map((dark) => dark === invert));
    }
  });

  test("is refused where it does not fit", async () => {
    const width = (await qrLines(URI, { width: null, invert: false })).indexOf("\n");
    expect(await qrLines(URI, { width, invert: false })).not.toBe("");
    const outcome = await qrLines(URI, { width: width - 1, invert: false }).catch((error: unknown) => error);
    expect(outcome).toMatchObject({ code: "bad_input" });
  });
});
