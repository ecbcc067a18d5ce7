import { unreadable } from "./item.ts";

/** Told of an XML document's elements in order; text comes whole with the end of its element. */
export interface XmlHandler {
  open(name: string, attributes: ReadonlyMap<string, string>): void;
  /** @param text Of the element itself, without that of elements within. */
  close(name: string, text: string): void;
}

const DEPTH = 128;
const NAME = /[A-Za-z_][\w.:-]*/y;
const ATTRIBUTE = /\s+([A-Za-z_][\w.:-]*)\s*=\s*(?:"([^"<]*)"|'([^'<]*)')/y;
const TAG_END = /\s*(\/?)>/y;
const ENTITIES: Readonly<Record<string, string>> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

/**
 * Walks an XML 1.0 document without building it. A document type is refused, and with it every entity but the five
 * of the standard and numbers, so that no text grows by being read.
 *
 * @throws Fault bad_input
 */
export function walkXml(format: string, text: string, handler: XmlHandler): void {
  const damaged = (why = "its XML is damaged") => unreadable(format, why);
  const stack: { name: string; text: string }[] = [];
  let at = text.startsWith("\ufeff") ? 1 : 0;
  let isDone = false;
  const matched = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found) at = pattern.lastIndex;
    return found;
  };
  const skipTo = (end: string): string => {
    const stop = text.indexOf(end, at);
    if (stop < 0) throw damaged();
    const skipped = text.slice(at, stop);
    at = stop + end.length;
    return skipped;
  };
  const decoded = (raw: string): string => {
    if (!raw.includes("&")) return raw;
    return raw.replace(/&([^;&]{0,12};)?/g, (_, entity: string | undefined) => {
      const name = entity?.slice(0, -1) ?? "";
      const number = /^#(?:x([0-9a-fA-F]{1,6})|(\d{1,7}))$/.exec(name);
      const code = number ? Number.parseInt(number[1] ?? number[2] ?? "", number[1] === undefined ? 10 : 16) : -1;
      if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) throw damaged();
      const character = code >= 0 ? String.fromCodePoint(code) : Object.hasOwn(ENTITIES, name) ? ENTITIES[name] : null;
      if (typeof character !== "string") throw damaged("its XML names an entity that is not of the standard");
      return character;
    });
  };
  const element = (): void => {
    const name = matched(NAME)?.[0];
    if (name === undefined || isDone) throw damaged();
    const attributes = new Map<string, string>();
    for (let found = matched(ATTRIBUTE); found; found = matched(ATTRIBUTE)) {
      const [, key = "", double, single] = found;
      if (attributes.has(key) || attributes.size >= 64) throw damaged();
      attributes.set(key, decoded(double ?? single ?? ""));
    }
    const end = matched(TAG_END);
    if (!end) throw damaged();
    if (stack.length >= DEPTH) throw damaged(`its XML nests deeper than ${DEPTH} levels`);
    handler.open(name, attributes);
    if (end[1] === "/") {
      handler.close(name, "");
      isDone = stack.length === 0;
    } else stack.push({ name, text: "" });
  };
  while (at < text.length) {
    const top = stack.at(-1);
    const next = text.indexOf("<", at);
    const between = text.slice(at, next < 0 ? text.length : next);
    if (top) top.text += decoded(between);
    else if (between.trim() !== "") throw damaged();
    if (next < 0) break;
    at = next + 1;
    if (text.startsWith("!--", at)) skipTo("-->");
    else if (text.startsWith("?", at)) skipTo("?>");
    else if (text.startsWith("![CDATA[", at) && top) {
      at += 8;
      top.text += skipTo("]]>");
    } else if (text.startsWith("!", at)) throw damaged("its XML declares a document type, which no such file needs");
    else if (text.startsWith("/", at)) {
      at++;
      const name = matched(NAME)?.[0];
      const closed = stack.pop();
      if (!closed || closed.name !== name || matched(TAG_END)?.[1] !== "") throw damaged();
      handler.close(closed.name, closed.text);
      isDone = stack.length === 0;
    } else element();
  }
  if (!isDone) throw damaged("its XML is cut short");
}
