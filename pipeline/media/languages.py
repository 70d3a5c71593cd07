"""Language tags: what containers write (ISO 639-2, both forms) as BCP 47 says it, in lower case (RFC 5646 §2.2.1).

BCP 47 wants the shortest code there is, so the two-letter code replaces the three-letter one where there is one; a
three-letter code without is a valid tag as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

UNKNOWN = "und"

_TAG = re.compile(r"[a-z]{2,3}(-[a-z0-9]{2,8})*")

_SHORT = """
aar=aa abk=ab afr=af aka=ak amh=am ara=ar arg=an asm=as ava=av ave=ae aym=ay aze=az bak=ba bam=bm bel=be ben=bn bih=bh
bis=bi tib=bo bod=bo bos=bs bre=br bul=bg cat=ca cze=cs ces=cs cha=ch che=ce chu=cu chv=cv cor=kw cos=co cre=cr wel=cy
cym=cy dan=da ger=de deu=de div=dv dzo=dz gre=el ell=el eng=en epo=eo est=et baq=eu eus=eu ewe=ee fao=fo per=fa fas=fa
fij=fj fin=fi fre=fr fra=fr fry=fy ful=ff gla=gd gle=ga glg=gl glv=gv grn=gn guj=gu hat=ht hau=ha heb=he her=hz hin=hi
hmo=ho hrv=hr hun=hu arm=hy hye=hy ibo=ig ice=is isl=is ido=io iii=ii iku=iu ile=ie ina=ia ind=id ipk=ik ita=it jav=jv
jpn=ja kal=kl kan=kn kas=ks geo=ka kat=ka kau=kr kaz=kk khm=km kik=ki kin=rw kir=ky kom=kv kon=kg kor=ko kua=kj kur=ku
lao=lo lat=la lav=lv lim=li lin=ln lit=lt ltz=lb lub=lu lug=lg mac=mk mkd=mk mah=mh mal=ml mao=mi mri=mi mar=mr may=ms
msa=ms mlg=mg mlt=mt mon=mn bur=my mya=my nau=na nav=nv nbl=nr nde=nd ndo=ng nep=ne dut=nl nld=nl nno=nn nob=nb nor=no
nya=ny oci=oc oji=oj ori=or orm=om oss=os pan=pa pli=pi pol=pl por=pt pus=ps que=qu roh=rm rum=ro ron=ro run=rn rus=ru
sag=sg san=sa sin=si slo=sk slk=sk slv=sl sme=se smo=sm sna=sn snd=sd som=so sot=st spa=es alb=sq sqi=sq srd=sc srp=sr
ssw=ss sun=su swa=sw swe=sv tah=ty tam=ta tat=tt tel=te tgk=tg tgl=tl tha=th tir=ti ton=to tsn=tn tso=ts tuk=tk tur=tr
twi=tw uig=ug ukr=uk urd=ur uzb=uz ven=ve vie=vi vol=vo wln=wa wol=wo xho=xh yid=yi yor=yo zha=za chi=zh zho=zh zul=zu
"""
SHORT: Mapping[str, str] = dict(entry.split("=") for entry in _SHORT.split())
"""Two-letter code by three-letter code, bibliographic and terminological (ISO 639-2)."""


def tag(written: str | None) -> str:
    """The BCP 47 tag, in lower case, of a container's language; `und` for none, or for what is no tag."""
    text = (written or "").strip().lower().replace("_", "-")
    if not _TAG.fullmatch(text) or len(text) > 35:
        return UNKNOWN
    primary, *rest = text.split("-")
    return "-".join((SHORT.get(primary, primary), *rest))
