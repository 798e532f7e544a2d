// What the policy uses of the contract, as the canonical ABI has it. Strings are UTF-16, as AssemblyScript's own.

@external("tollgate:policy/request@0.1.0", "header")
declare function header(name: usize, length: i32, result: usize): void;
@external("tollgate:policy/request@0.1.0", "set-header")
declare function setHeader(name: usize, length: i32, value: usize, valueLength: i32, result: usize): void;
@external("tollgate:policy/request@0.1.0", "remove-header")
declare function removeHeader(name: usize, length: i32, result: usize): void;
@external("tollgate:policy/response@0.1.0", "set-header")
declare function setResponseHeader(name: usize, length: i32, value: usize, valueLength: i32, result: usize): void;

// Where results are written, of calls in either direction: there is one at a time.
const area: usize = memory.data(24, 4);

/** The value of a header, if there is one. */
export function requestHeader(name: string): string | null {
  header(changetype<usize>(name), name.length, area);
  return load<u8>(area) == 0 ? null : taken(load<usize>(area, 4), load<i32>(area, 8));
}

/** Whether the header is set. */
export function setRequestHeader(name: string, value: string): bool {
  setHeader(changetype<usize>(name), name.length, changetype<usize>(value), value.length, area);
  return load<u8>(area) == 0;
}

export function removeRequestHeader(name: string): bool {
  removeHeader(changetype<usize>(name), name.length, area);
  return load<u8>(area) == 0;
}

export function setHeaderOfResponse(name: string, value: string): bool {
  setResponseHeader(changetype<usize>(name), name.length, changetype<usize>(value), value.length, area);
  return load<u8>(area) == 0;
}

/** An answer. It is made once and lent to the host for each request, so it is never freed. */
export class Reply {
  private headers: StaticArray<string>;
  private list: StaticArray<usize>;

  /** The headers are names and values in turn. */
  constructor(private status: u16, headers: string[], private body: ArrayBuffer) {
    this.headers = StaticArray.fromArray(headers);
    this.list = new StaticArray<usize>(2 * headers.length);
    for (let place = 0; place < headers.length; place++) {
      this.list[2 * place] = changetype<usize>(this.headers[place]);
      this.list[2 * place + 1] = this.headers[place].length;
    }
  }

  /** The verdict `reply`. */
  verdict(): usize {
    store<u8>(area, 1);
    store<u16>(area, this.status, 4);
    store<usize>(area, changetype<usize>(this.list), 8);
    store<i32>(area, this.headers.length / 2, 12);
    store<usize>(area, changetype<usize>(this.body), 16);
    store<i32>(area, this.body.byteLength, 20);
    return area;
  }
}

/** The verdict `next`. */
export function next(): usize {
  store<u8>(area, 0);
  return area;
}

let refusal: string | null = null;

/** What `configure` returns: null if the configuration is accepted, otherwise what is wrong with it. */
export function accepted(wrong: string | null): usize {
  // Keeps the text until the host has read it.
  refusal = wrong;
  store<u8>(area, wrong === null ? 0 : 1);
  if (wrong !== null) {
    store<usize>(area, changetype<usize>(wrong), 4);
    store<i32>(area, wrong.length, 8);
  }
  return area;
}

/** A string that the host has passed. It belongs to the component, which copies and frees it. */
export function taken(text: usize, length: i32): string {
  const copy = String.UTF16.decodeUnsafe(text, length << 1);
  if (length > 0) heap.free(text);
  return copy;
}

/** The host's way to memory of the component: what it passes is put there. */
export function reallocate(old: usize, oldSize: usize, align: usize, size: usize): usize {
  return size == 0 ? align : old == 0 ? heap.alloc(size) : heap.realloc(old, size);
}
