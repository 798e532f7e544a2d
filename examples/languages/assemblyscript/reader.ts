// Reads JSON that has nothing but objects and strings, which is all that there can be.

export class Reader {
  private at: i32 = 0;

  constructor(private text: string) {}

  /** Passes over white space and then this character, if it is the next. */
  take(character: string): bool {
    this.skipSpace();
    if (this.at == this.text.length || this.text.charCodeAt(this.at) != character.charCodeAt(0)) return false;
    this.at++;
    return true;
  }

  isAtEnd(): bool {
    this.skipSpace();
    return this.at == this.text.length;
  }

  takeString(): string | null {
    if (!this.take('"')) return null;
    const units = new Array<i32>();
    while (this.at < this.text.length && this.text.charCodeAt(this.at) >= 0x20) {
      const unit = this.text.charCodeAt(this.at++);
      if (unit == 0x22) return String.fromCharCodes(units);
      const meant = unit == 0x5c ? this.takeEscape() : unit;
      if (meant < 0) break;
      units.push(meant);
    }
    return null;
  }

  /** The code unit that is meant, or -1. */
  private takeEscape(): i32 {
    if (this.at == this.text.length) return -1;
    const name = this.text.charAt(this.at++);
    const place = '"\\/bfnrt'.indexOf(name);
    if (place >= 0) return '"\\/\b\f\n\r\t'.charCodeAt(place);
    const digits = this.text.substr(this.at, 4);
    if (name != "u" || digits.length < 4) return -1;
    let unit = 0;
    for (let digit = 0; digit < 4; digit++) {
      const value = "0123456789abcdef".indexOf(digits.charAt(digit).toLowerCase());
      if (value < 0) return -1;
      unit = (unit << 4) | value;
    }
    this.at += 4;
    return unit;
  }

  private skipSpace(): void {
    while (this.at < this.text.length && " \t\r\n".includes(this.text.charAt(this.at))) this.at++;
  }
}
