// What the policy uses of the contract, in TypeScript's words.

declare module "tollgate:policy/request@0.1.0" {
  /** The value of a header; null if there is none. */
  export function header(name: string): string | null;
  /** Throws one of "invalid-name", "invalid-value", "forbidden", "too-large". */
  export function setHeader(name: string, value: string): void;
  export function removeHeader(name: string): void;
}

declare module "tollgate:policy/response@0.1.0" {
  export function setHeader(name: string, value: string): void;
}

interface Reply {
  status: number;
  headers: [name: string, value: string][];
  body: Uint8Array;
}

type RequestVerdict = { tag: "next" } | { tag: "reply"; val: Reply } | { tag: "forward"; val: string };
type ResponseVerdict = { tag: "next" } | { tag: "reply"; val: Reply };
